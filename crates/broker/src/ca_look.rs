//! A look at a CA without a token: what a person who sets up, or wonders what is wrong, wants to know about it.

use crate::ca_address::CaAddress;
use crate::ca_client::CaHttp;
use epithet_ssh::CaPublicKey;
use epithet_wire::ca::Discovery;
use jiff::Timestamp;
use std::time::Duration;

/// What a CA says to anybody.
#[derive(Debug, Clone)]
pub struct CaView {
    /// Its public key, as hosts have to trust it.
    pub public_key: CaPublicKey,
    /// How to log in, and which hosts are its own; `None` when it does not say.
    pub discovery: Option<Discovery>,
    /// How far this machine's clock is ahead of the CA's (negative: behind), to the second; `None` when it does not say
    /// the time.
    pub clock_ahead: Option<i64>,
    /// How long it took to answer.
    pub answered_in: Duration,
}

/// Asks a CA for its public key and its discovery document.
///
/// # Errors
/// A sentence about the CA: unreachable, or not a CA.
pub async fn look_at_ca(http: &CaHttp, ca: &CaAddress) -> Result<CaView, String> {
    let began = std::time::Instant::now();
    let front = http.front_page(ca).await?;
    let answered_in = began.elapsed();
    let public_key = front_key(front.body.as_bytes())?;
    let clock_ahead = front
        .date
        .map(|date| clock_ahead(Timestamp::now(), date, answered_in));
    Ok(CaView {
        public_key,
        discovery: http.discovery(ca, &epithet_agent::Clock::default()).await?,
        clock_ahead,
        answered_in,
    })
}

/// The public key that a CA answers with at its URL.
pub(crate) fn front_key(body: &[u8]) -> Result<CaPublicKey, String> {
    let text = String::from_utf8_lossy(body);
    CaPublicKey::parse(text.trim()).map_err(|_| {
        "it is not a CA: it answers, but not with a CA's public key; is this the CA's URL, or is there a login page of the network in between?"
            .to_owned()
    })
}

/// A `Date` header has whole seconds, cut off, and was written somewhere within the time that the answer took: only what
/// is beyond both counts.
pub fn clock_ahead(now: Timestamp, date: Timestamp, answered_in: Duration) -> i64 {
    let ahead = now.as_second() - date.as_second();
    let slack = i64::try_from(answered_in.as_secs())
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    match ahead {
        0.. => (ahead - slack).max(0),
        _ => (ahead + 1).min(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_and_cut_seconds_are_no_difference_of_clocks() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let cases = [
            (100, 100, 0, 0),
            (101, 100, 0, 0),
            (99, 100, 0, 0),
            (103, 100, 2, 0),
            (104, 100, 2, 1),
            (400, 100, 0, 299),
            (100, 400, 0, -299),
        ];
        for (now, date, seconds, ahead) in cases {
            let found = clock_ahead(at(now), at(date), Duration::from_secs(seconds));
            assert_eq!(found, ahead, "{now} {date} {seconds}");
        }
    }
}

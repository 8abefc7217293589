//! Several CAs as one: the healthy ones by priority, each at most once for one request, and the next one as well when one
//! takes longer than it usually does.

use crate::ca_address::CaAddress;
use crate::ca_answer::{Answered, CaAnswer};
use crate::ca_client::{CaHttp, Post};
use crate::dial::Dial;
use crate::discovery::Said;
use crate::health::{Health, HealthState};
use crate::pace::Pace;
use crate::traces::Recorder;
use epithet_agent::Clock;
use epithet_wire::broker::CaInspection;
use epithet_wire::ca::{CertificateRequest, Discovery};
use epithet_wire::limits::DISCOVERY_STAGGER;
use epithet_wire::{RequestId, Token};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// See the module.
#[derive(Debug)]
pub(crate) struct CaPool {
    http: CaHttp,
    cooldown: Duration,
    clock: Clock,
    members: Vec<Arc<Member>>,
}

#[derive(Debug)]
struct Member {
    address: CaAddress,
    health: Mutex<Health>,
    pace: Mutex<Pace>,
    dial: Dial,
}

impl Member {
    fn new(address: CaAddress) -> Self {
        Self {
            address,
            health: Mutex::default(),
            pace: Mutex::default(),
            dial: Dial::new(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is out. When it is dropped undecided (ssh went away, or another CA was faster), the CA's health stays as
/// it was.
struct Attempt {
    member: Arc<Member>,
    clock: Clock,
    cooldown: Duration,
    decided: bool,
}

impl Attempt {
    fn decide(mut self, answer: &CaAnswer, took: Duration) {
        self.decided = true;
        let mut health = self.member.health();
        match answer {
            CaAnswer::Unavailable { problem, retry_after } => {
                tracing::warn!(ca = %self.member.address, %problem, "CA unavailable");
                health.failed(
                    self.clock.now().boot,
                    *retry_after,
                    self.cooldown,
                    jitter(),
                    problem.clone(),
                );
            }
            CaAnswer::Declined { problem, retry_after } => {
                tracing::info!(ca = %self.member.address, %problem, "CA declined the request for now");
                health.declined(
                    self.clock.now().boot,
                    *retry_after,
                    self.cooldown,
                    problem.clone(),
                );
            }
            CaAnswer::Certificate(_)
            | CaAnswer::Unauthorized(_)
            | CaAnswer::Denied(_)
            | CaAnswer::NotHandled(_)
            | CaAnswer::BadRequest(_) => {
                health.answered();
                self.member.pace().answered(took);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.decided {
            self.member.health().undecided();
        }
    }
}

impl CaPool {
    /// A pool of at least one CA.
    pub(crate) fn new(http: CaHttp, cooldown: Duration, mut addresses: Vec<CaAddress>, clock: Clock) -> Self {
        addresses.sort_by_key(|address| std::cmp::Reverse(address.priority));
        let mut seen = std::collections::HashSet::new();
        // Named twice is one CA, with the higher of its priorities, so that no request asks it twice.
        addresses.retain(|address| seen.insert(address.url.clone()));
        Self {
            http,
            cooldown,
            clock,
            members: addresses
                .into_iter()
                .map(|address| Arc::new(Member::new(address)))
                .collect(),
        }
    }

    /// Asks one CA after another until one answers: first those that are well, then those that were being left alone,
    /// so that a laptop that was without a network for a while is not locked out. One that takes longer than it usually
    /// does is not given up, but the next one is asked as well; the first answer counts.
    pub(crate) async fn certificate(
        &self,
        token: &Token,
        body: &CertificateRequest,
        request_id: &RequestId,
        recorder: &Arc<Recorder>,
    ) -> CaAnswer {
        let post = match Post::new(token, body, request_id) {
            Ok(post) => Arc::new(post),
            Err(problem) => return CaAnswer::BadRequest(problem),
        };
        let (mut waiting, mut out) = (self.order().into_iter().peekable(), JoinSet::new());
        let (mut asked, mut problems) = (Vec::new(), Vec::new());
        loop {
            let patience = match waiting.next() {
                Some(member) => {
                    asked.push(Arc::clone(&member));
                    let patience = member.pace().patience();
                    out.spawn(self.ask(member, Arc::clone(&post), Arc::clone(recorder)));
                    patience
                }
                None if out.is_empty() => break,
                None => Duration::MAX,
            };
            while !out.is_empty() {
                let answered = tokio::select! {
                    answered = out.join_next() => answered,
                    () = tokio::time::sleep(patience), if waiting.peek().is_some() => break,
                };
                match answered {
                    Some(Ok((
                        member,
                        CaAnswer::Unavailable { problem, .. } | CaAnswer::Declined { problem, .. },
                    ))) => {
                        problems.push(format!("{}: {problem}", member.address));
                        asked.retain(|other| !Arc::ptr_eq(other, &member));
                        if waiting.peek().is_some() {
                            break;
                        }
                    }
                    Some(Ok((winner, answer))) => {
                        self.overtaken(&asked, &winner);
                        return answer;
                    }
                    Some(Err(_)) | None => {}
                }
            }
        }
        CaAnswer::Unavailable {
            problem: problems.join("; "),
            retry_after: None,
        }
    }

    /// One request to one CA, its consequences for the CA's health, and its place in the trace.
    fn ask(
        &self,
        member: Arc<Member>,
        post: Arc<Post>,
        recorder: Arc<Recorder>,
    ) -> impl Future<Output = (Arc<Member>, CaAnswer)> + Send + use<> {
        member.health().admit(self.clock.now().boot);
        let attempt = Attempt {
            member: Arc::clone(&member),
            clock: self.clock.clone(),
            cooldown: self.cooldown,
            decided: false,
        };
        let (http, clock) = (self.http.clone(), self.clock.clone());
        async move {
            let began = Instant::now();
            let Answered { answer, policy } = http
                .certificate(&member.address, &post, &member.dial, &clock)
                .await;
            attempt.decide(&answer, began.elapsed());
            recorder.phase("ca", began, format!("{}: {}", member.address, answer.name()));
            if let Some(policy) = policy {
                // Where in the CA's time it lies is not said; the middle is as good as any.
                let around = began.elapsed().saturating_sub(policy) / 2;
                recorder.phase_of("policy", began + around, policy, "as the CA says");
            }
            (member, answer)
        }
    }

    /// Remembers which CAs were asked before the one that answered, and did not.
    fn overtaken(&self, asked: &[Arc<Member>], winner: &Arc<Member>) {
        let now = self.clock.now().boot;
        for slow in asked.iter().take_while(|member| !Arc::ptr_eq(member, winner)) {
            tracing::info!(ca = %slow.address, by = %winner.address, "CA slower than usual; another one answered first");
            slow.pace().overtaken(now);
        }
    }

    /// What the first CA says that names its hosts, else what the first says that answers. One that says nothing for a moment
    /// is not given up, but the next one is asked as well: every ssh may be waiting for this.
    pub(crate) async fn discovery(&self) -> Result<Said, String> {
        let (mut waiting, mut out) = (self.order().into_iter().peekable(), JoinSet::new());
        let (mut problems, mut first) = (Vec::new(), None);
        loop {
            match waiting.next() {
                Some(member) => drop(out.spawn(self.look_at(member))),
                None if out.is_empty() => break,
                None => {}
            }
            while !out.is_empty() {
                let answered = tokio::select! {
                    answered = out.join_next() => answered,
                    () = tokio::time::sleep(DISCOVERY_STAGGER), if waiting.peek().is_some() => break,
                };
                match answered {
                    Some(Ok((_, Ok(discovery)))) => {
                        let said = Said {
                            discovery,
                            is_partial: false,
                        };
                        if !said.patterns().is_empty() {
                            return Ok(said);
                        }
                        first.get_or_insert(said);
                    }
                    Some(Ok((member, Err(problem)))) => {
                        problems.push(format!("{}: {problem}", member.address));
                    }
                    Some(Err(_)) | None => {}
                }
                if waiting.peek().is_some() {
                    break;
                }
            }
        }
        match first {
            Some(said) => Ok(Said {
                is_partial: !problems.is_empty(),
                ..said
            }),
            None => Err(problems.join("; ")),
        }
    }

    /// What one CA says of itself.
    fn look_at(
        &self,
        member: Arc<Member>,
    ) -> impl Future<Output = (Arc<Member>, Result<Option<Discovery>, String>)> + Send + use<> {
        let (http, clock) = (self.http.clone(), self.clock.clone());
        async move {
            let said = http.discovery(&member.address, &clock).await;
            (member, said)
        }
    }

    /// The members in the order in which they are asked: the well ones, those overtaken a moment ago or at rest, those left
    /// alone.
    fn order(&self) -> Vec<Arc<Member>> {
        let now = self.clock.now().boot;
        let rank = |member: &Arc<Member>| match member.health().state(now) {
            HealthState::Open => 2,
            HealthState::Resting => 1,
            HealthState::Closed | HealthState::HalfOpen if member.pace().is_slow(now) => 1,
            HealthState::Closed | HealthState::HalfOpen => 0,
        };
        let mut ranked: Vec<_> = self.members.iter().map(|member| (rank(member), member)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, member)| Arc::clone(member)).collect()
    }

    /// The CAs, as configured but for their order.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.address.to_string())
            .collect()
    }

    /// The first CA's URL, as the pool's name.
    pub(crate) fn name(&self) -> String {
        self.members
            .first()
            .map(|member| member.address.to_string())
            .unwrap_or_default()
    }

    pub(crate) fn inspect(&self) -> Vec<CaInspection> {
        let now = self.clock.now().boot;
        let inspect = |member: &Arc<Member>| {
            let health = member.health();
            CaInspection {
                url: member.address.to_string(),
                priority: member.address.priority,
                state: health.state(now).name().to_owned(),
                last_error: health.last_error().map(str::to_owned),
            }
        };
        self.members.iter().map(inspect).collect()
    }
}

/// A number in 0..1, so that many laptops do not come back in the same moment.
fn jitter() -> f64 {
    let mut byte = [128];
    // Without randomness the pause is simply the middle one.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CA that answers `GET /` and `GET /discovery` with these.
    fn ca(front: String, discovery: &'static str) -> CaAddress {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                for _ in lines.map_while(|line| line.ok().filter(|line| !line.is_empty())) {}
                let head = "connection: close\r\n";
                let answer = match first.starts_with("GET /discovery ") {
                    true => format!("HTTP/1.1 200 OK\r\n{head}\r\n{discovery}"),
                    false => front.replacen("\r\n", &format!("\r\n{head}"), 1),
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url.parse().unwrap()
    }

    fn key() -> String {
        epithet_ssh::CaKey::generate_ed25519().unwrap().public_line()
    }

    #[test]
    fn a_ca_that_is_named_twice_is_asked_once() {
        let names = [
            "priority=5:https://ca.example.com/#old",
            "https://ca.example.com",
            "https://CA.example.com:443/",
            "https://ca.example.com/other",
        ];
        let addresses = names.map(|name| name.parse().unwrap()).to_vec();
        let http = CaHttp::new(None, Duration::from_secs(30)).unwrap();
        let pool = CaPool::new(http, Duration::from_secs(60), addresses, Clock::default());
        assert_eq!(
            pool.addresses(),
            ["https://ca.example.com/", "https://ca.example.com/other"]
        );
        assert_eq!(pool.members[0].address.priority, 100);
    }

    #[tokio::test]
    async fn the_ca_that_names_its_hosts_counts_and_silence_beside_one_that_is_away_is_partial() {
        let naming = || {
            let link = "link: <\u{e4}>; rel=next, <discovery>; rel=discovery\r\n";
            let front = format!("HTTP/1.1 200 OK\r\n{link}\r\n{}", key());
            ca(front, r#"{"matchPatterns": ["*.corp"]}"#)
        };
        let silent = || ca(format!("HTTP/1.1 200 OK\r\n\r\n{}", key()), "{}");
        let away = || ca("HTTP/1.1 503 Service Unavailable\r\n\r\n".to_owned(), "");
        let strange = || ca("HTTP/1.1 200 OK\r\n\r\nOK".to_owned(), "");
        // Takes connections, and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hanging = || {
            format!("http://{}", listener.local_addr().unwrap())
                .parse()
                .unwrap()
        };
        for (cas, expected) in [
            (vec![naming(), silent()], Ok((1, false))),
            (vec![silent(), naming()], Ok((1, false))),
            (vec![away(), naming()], Ok((1, false))),
            (vec![away(), silent()], Ok((0, true))),
            (vec![strange(), silent()], Ok((0, true))),
            (vec![silent(), silent()], Ok((0, false))),
            (vec![hanging(), naming()], Ok((1, false))),
            (vec![hanging(), away(), naming()], Ok((1, false))),
            (vec![strange()], Err(())),
            (vec![away(), strange()], Err(())),
        ] {
            let http = CaHttp::new(None, Duration::from_secs(3600)).unwrap();
            let named = format!("{cas:?}");
            let pool = CaPool::new(http, Duration::from_secs(60), cas, Clock::default());
            let in_time = tokio::time::timeout(Duration::from_secs(60), pool.discovery()).await;
            let found = in_time.expect("one that hangs keeps nobody from the next");
            let found = found.map(|said| (said.patterns().len(), said.is_partial));
            assert_eq!(found.map_err(|_| ()), expected, "{named}");
        }
    }
}

//! The part of the ledger that logs devices in (RFC 8628).

use super::{Consent, Granted, Ledger, Refusal, make_room};
use crate::random::{random_bytes, random_text};

/// How much longer a device has to wait after each `slow_down` (RFC 8628, section 3.5).
const SLOW_DOWN_MS: i64 = 5_000;
/// Characters of user codes: no vowels, so no words; nothing that looks like another one (RFC 8628, section 6.1).
const USER_CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

enum DeviceState {
    Waiting,
    Approved(Consent),
    Denied,
    Spent,
}

pub(super) struct Device {
    user_code: String,
    scope: String,
    audience: Option<String>,
    state: DeviceState,
    expires: i64,
    interval: i64,
    last_asked: Option<i64>,
}

/// The codes for one device login.
#[derive(Debug, Clone)]
pub(crate) struct DeviceCodes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
}

impl Ledger {
    /// Codes for a device that wants to log in (RFC 8628, section 3.2).
    pub(crate) fn make_device(
        &mut self,
        scope: &str,
        audience: Option<&str>,
        life_ms: i64,
        interval_ms: i64,
        now: i64,
    ) -> Result<DeviceCodes, Refusal> {
        make_room(&mut self.devices, |device| device.expires > now)?;
        let codes = DeviceCodes {
            device_code: random_text(),
            user_code: random_user_code(),
        };
        self.devices.insert(
            codes.device_code.clone(),
            Device {
                user_code: codes.user_code.clone(),
                scope: scope.to_owned(),
                audience: audience.map(ToOwned::to_owned),
                state: DeviceState::Waiting,
                expires: now + life_ms,
                interval: interval_ms,
                last_asked: None,
            },
        );
        Ok(codes)
    }

    /// A person's answer to a user code: `user` says yes, `None` says no. False when no device waits with this code.
    pub(crate) fn answer_device(&mut self, user_code: &str, user: Option<&str>, now: i64) -> bool {
        let wanted = canonical_user_code(user_code);
        let found = self.devices.values_mut().find(|device| {
            canonical_user_code(&device.user_code) == wanted
                && device.expires > now
                && matches!(device.state, DeviceState::Waiting)
        });
        let Some(device) = found else { return false };
        device.state = match user {
            None => DeviceState::Denied,
            Some(user) => DeviceState::Approved(Consent {
                user: user.to_owned(),
                scope: device.scope.clone(),
                auth_time: now / 1000,
                audience: device.audience.clone(),
            }),
        };
        true
    }

    /// The device's question whether its person has answered (RFC 8628, section 3.4).
    pub(crate) fn redeem_device_code(&mut self, device_code: &str, now: i64) -> Result<Granted, Refusal> {
        let Some(device) = self.devices.get_mut(device_code) else {
            return Err(Refusal::InvalidGrant("the device code is not known"));
        };
        if device.expires <= now {
            return Err(Refusal::ExpiredToken);
        }
        let too_soon = device.last_asked.is_some_and(|last| now - last < device.interval);
        device.last_asked = Some(now);
        if too_soon {
            device.interval += SLOW_DOWN_MS;
            return Err(Refusal::SlowDown);
        }
        match std::mem::replace(&mut device.state, DeviceState::Spent) {
            DeviceState::Waiting => {
                device.state = DeviceState::Waiting;
                Err(Refusal::AuthorizationPending)
            }
            DeviceState::Denied => {
                device.state = DeviceState::Denied;
                Err(Refusal::AccessDenied)
            }
            DeviceState::Spent => Err(Refusal::InvalidGrant("the device code was used before")),
            DeviceState::Approved(consent) => {
                let family = self.begin_family(&consent)?;
                Ok(Granted {
                    family,
                    consent,
                    nonce: None,
                })
            }
        }
    }
}

/// Eight letters with a hyphen in the middle.
fn random_user_code() -> String {
    let mut code = String::with_capacity(9);
    for (index, byte) in random_bytes::<8>().into_iter().enumerate() {
        if index == 4 {
            code.push('-');
        }
        code.push(char::from(
            USER_CODE_LETTERS[usize::from(byte) % USER_CODE_LETTERS.len()],
        ));
    }
    code
}

/// A user code as a person may type it: any case, with or without the hyphen.
fn canonical_user_code(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_waits_is_slowed_down_and_gets_its_tokens_once() {
        let mut ledger = Ledger::default();
        let codes = ledger.make_device("openid", None, 60_000, 5_000, 0).unwrap();
        let ask = |ledger: &mut Ledger, now| {
            ledger
                .redeem_device_code(&codes.device_code, now)
                .map(|g| g.consent.user)
        };
        assert_eq!(ask(&mut ledger, 0), Err(Refusal::AuthorizationPending));
        assert_eq!(ask(&mut ledger, 4_999), Err(Refusal::SlowDown));
        assert_eq!(
            ask(&mut ledger, 14_998),
            Err(Refusal::SlowDown),
            "the interval is ten seconds now"
        );
        let typed = codes.user_code.replace('-', " ").to_lowercase();
        assert!(!ledger.answer_device("BBBB", Some("alice"), 15_000));
        assert!(ledger.answer_device(&typed, Some("alice"), 15_000));
        assert!(
            !ledger.answer_device(&typed, Some("mallory"), 15_000),
            "a code is answered once"
        );
        assert_eq!(ask(&mut ledger, 40_000), Ok("alice".to_owned()));
        assert!(matches!(ask(&mut ledger, 59_999), Err(Refusal::InvalidGrant(_))));
        assert_eq!(ask(&mut ledger, 60_000), Err(Refusal::ExpiredToken));
    }

    #[test]
    fn a_refused_device_hears_of_it_every_time() {
        let mut ledger = Ledger::default();
        let codes = ledger.make_device("openid", None, 60_000, 0, 0).unwrap();
        assert!(ledger.answer_device(&codes.user_code, None, 0));
        for _ in 0..2 {
            assert_eq!(
                ledger.redeem_device_code(&codes.device_code, 1).unwrap_err(),
                Refusal::AccessDenied
            );
        }
    }
}

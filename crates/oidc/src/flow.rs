//! Which way to log in, and what to try next when the provider refuses one.

use crate::provider::Provider;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A way for a person to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// A browser on this machine, which comes back to a listener of ours (RFC 8252).
    Browser,
    /// A code to enter on any device (RFC 8628).
    Device,
    /// A browser anywhere; the person brings the address back on which it ends.
    Paste,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Browser => "browser",
            Self::Device => "device",
            Self::Paste => "paste",
        })
    }
}

/// What was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowChoice {
    /// By what there is.
    #[default]
    Auto,
    /// This one and no other.
    Only(Flow),
}

impl std::str::FromStr for FlowChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "browser" => Ok(Self::Only(Flow::Browser)),
            "device" => Ok(Self::Only(Flow::Device)),
            "paste" => Ok(Self::Only(Flow::Paste)),
            _ => Err(format!("{text:?} is not one of auto, browser, device and paste")),
        }
    }
}

/// What there is to log in with, on this machine and around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// A desktop that shows a browser's window.
    pub has_display: bool,
    /// The terminal is itself an ssh session: the person and their browser are elsewhere.
    pub is_remote_session: bool,
}

impl Default for Surroundings {
    /// A person in front of a desktop.
    fn default() -> Self {
        Self {
            has_display: true,
            is_remote_session: false,
        }
    }
}

impl Surroundings {
    /// Looks at the environment. `EPITHET_REMOTE_SESSION` speaks for the terminal that waits, and counts more than
    /// what is left in the broker's own environment from the session it was started in.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let is_remote_session = match variable("EPITHET_REMOTE_SESSION").as_deref() {
            Some("1" | "true") => true,
            Some(_) => false,
            None => is_set("SSH_CONNECTION") || is_set("SSH_TTY"),
        };
        let has_display = cfg!(target_os = "macos")
            || ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"]
                .into_iter()
                .any(is_set);
        Self {
            has_display,
            is_remote_session,
        }
    }
}

/// The flows to try, in this order. What was tried in vain before comes last, and yet comes: somebody may have
/// mended it.
pub fn order(
    choice: FlowChoice,
    in_vain: &[Flow],
    surroundings: Surroundings,
    provider: &Provider,
) -> Vec<Flow> {
    if let FlowChoice::Only(flow) = choice {
        return vec![flow];
    }
    let has_browser = surroundings.has_display && !surroundings.is_remote_session;
    let has_code = provider.authorization_endpoint.is_some();
    let possible = |flow: &Flow| match flow {
        Flow::Browser => has_code && has_browser,
        Flow::Device => provider.device_authorization_endpoint.is_some(),
        Flow::Paste => has_code,
    };
    let mut flows = [Flow::Browser, Flow::Device, Flow::Paste].to_vec();
    flows.retain(possible);
    // A stable sort: the usual order within those that may work, and within the others.
    flows.sort_by_key(|flow| in_vain.contains(flow));
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Issuer;

    fn provider(has_device: bool) -> Provider {
        let device = if has_device {
            r#","device_authorization_endpoint":"https://i.example/d""#
        } else {
            ""
        };
        let document = format!(
            r#"{{"issuer":"https://i.example","jwks_uri":"https://i.example/k","authorization_endpoint":"https://i.example/a"{device}}}"#
        );
        Provider::parse(&Issuer::parse("https://i.example").unwrap(), document.as_bytes()).unwrap()
    }

    #[test]
    fn the_flow_follows_from_what_there_is() {
        use Flow::{Browser, Device, Paste};
        let desk = Surroundings {
            has_display: true,
            is_remote_session: false,
        };
        let remote = Surroundings {
            has_display: true,
            is_remote_session: true,
        };
        let bare = Surroundings {
            has_display: false,
            is_remote_session: false,
        };
        let auto = FlowChoice::Auto;
        let cases = [
            (auto, &[][..], desk, true, &[Browser, Device, Paste][..]),
            (auto, &[], desk, false, &[Browser, Paste]),
            (auto, &[], remote, true, &[Device, Paste]),
            (auto, &[], remote, false, &[Paste]),
            (auto, &[], bare, true, &[Device, Paste]),
            (auto, &[Device], remote, true, &[Paste, Device]),
            (auto, &[Browser], desk, true, &[Device, Paste, Browser]),
            (auto, &[Browser], desk, false, &[Paste, Browser]),
            (auto, &[Browser], remote, true, &[Device, Paste]),
            (auto, &[Paste, Browser], desk, true, &[Device, Browser, Paste]),
            (FlowChoice::Only(Device), &[Device], desk, false, &[Device]),
        ];
        for (choice, in_vain, surroundings, has_device, expected) in cases {
            let found = order(choice, in_vain, surroundings, &provider(has_device));
            assert_eq!(
                found, expected,
                "{choice:?} {in_vain:?} {surroundings:?} {has_device}"
            );
        }
    }

    #[test]
    fn the_waiting_terminal_says_where_the_person_is() {
        let detect = |pairs: &[(&str, &str)]| {
            Surroundings::detect(|name| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, v)| (*v).to_owned())
            })
        };
        assert!(detect(&[("SSH_CONNECTION", "a b c d")]).is_remote_session);
        assert!(!detect(&[("SSH_CONNECTION", "a b c d"), ("EPITHET_REMOTE_SESSION", "0")]).is_remote_session);
        assert!(detect(&[("EPITHET_REMOTE_SESSION", "1")]).is_remote_session);
        assert!(detect(&[("WAYLAND_DISPLAY", "wayland-0")]).has_display);
        if cfg!(target_os = "linux") {
            assert!(!detect(&[("DISPLAY", "")]).has_display);
        }
    }
}

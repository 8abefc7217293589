//! Which provider and client id a CA named when it was first used. A CA that later names others is not followed
//! silently: it could send a person to a real provider with another application's client id, and use the token there.

use epithet_wire::ca::DiscoveryAuth;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

/// The largest pins file that is read.
const PINS_MAX: u64 = 1024 * 1024;

/// What is pinned for a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The provider.
    pub issuer: String,
    /// The client id.
    pub client_id: String,
}

impl From<&DiscoveryAuth> for Pin {
    fn from(auth: &DiscoveryAuth) -> Self {
        Self {
            issuer: auth.issuer.clone(),
            client_id: auth.client_id.clone(),
        }
    }
}

/// Why a pin could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The CA names something else than before.
    #[error("the CA {ca} used to name the provider {} with client id {}, and now names {} with {}; nothing was sent. If this change is right, run: epithet trust {ca}", pinned.issuer, pinned.client_id, named.issuer, named.client_id)]
    Changed {
        /// The CA.
        ca: String,
        /// What it named when it was first used.
        pinned: Box<Pin>,
        /// What it names now.
        named: Box<Pin>,
    },
    /// The file.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The file of pins: JSON, for its owner only.
#[derive(Debug, Clone)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// The pins in this file, which need not exist yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Accepts what `ca` names if it is what it named before; the first time, it is written down.
    pub fn check(&self, ca: &str, named: &Pin) -> Result<(), PinError> {
        self.with_file(|pins| match pins.get(ca) {
            Some(pinned) if pinned == named => Ok(false),
            Some(pinned) => Err(PinError::Changed {
                ca: ca.to_owned(),
                pinned: Box::new(pinned.clone()),
                named: Box::new(named.clone()),
            }),
            None => {
                pins.insert(ca.to_owned(), named.clone());
                Ok(true)
            }
        })
    }

    /// What is pinned for `ca`.
    pub fn get(&self, ca: &str) -> Result<Option<Pin>, PinError> {
        let mut found = None;
        self.with_file(|pins| {
            found = pins.get(ca).cloned();
            Ok(false)
        })?;
        Ok(found)
    }

    /// Pins something else for `ca`, because a person said so.
    pub fn replace(&self, ca: &str, named: Pin) -> Result<(), PinError> {
        self.with_file(|pins| {
            pins.insert(ca.to_owned(), named);
            Ok(true)
        })
    }

    /// Runs `change` on the pins under a lock and writes them back when it says so.
    fn with_file(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, Pin>) -> Result<bool, PinError>,
    ) -> Result<(), PinError> {
        let problem = |problem: String| PinError::File {
            path: self.path.clone(),
            problem,
        };
        let io_problem = |error: io::Error| problem(error.to_string());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(
            rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| io_problem(error.into()))?,
        );
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| io_problem(error.into()))?;
        let mut text = String::new();
        (&file)
            .take(PINS_MAX)
            .read_to_string(&mut text)
            .map_err(io_problem)?;
        let mut pins = if text.trim().is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_str(&text)
                .map_err(|error| problem(format!("is not understood ({error}); repair it or remove it")))?
        };
        if change(&mut pins)? {
            let text = serde_json::to_string_pretty(&pins).map_err(|error| problem(error.to_string()))?;
            file.set_len(0).and_then(|()| file.rewind()).map_err(io_problem)?;
            file.write_all(text.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
                .map_err(io_problem)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_use_is_remembered_and_a_change_refused_until_a_person_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::at(dir.path().join("pins"));
        let first = Pin {
            issuer: "https://i.example.com".into(),
            client_id: "one".into(),
        };
        let other = Pin {
            client_id: "two".into(),
            ..first.clone()
        };
        assert!(pins.check("https://ca.example.com/", &first).is_ok());
        assert!(pins.check("https://ca.example.com/", &first).is_ok());
        let error = pins
            .check("https://ca.example.com/", &other)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("one") && error.contains("two") && error.contains("epithet trust"),
            "{error}"
        );
        assert_eq!(pins.get("https://ca.example.com/").unwrap(), Some(first));
        pins.replace("https://ca.example.com/", other.clone()).unwrap();
        assert!(pins.check("https://ca.example.com/", &other).is_ok());
    }
}

//! A story's beginning: a provider of either kind, a site that believes it, a laptop with a browser, and a host.

use crate::laptop::{Laptop, start};
use crate::site::{EPITHET, Site};
use epithet_testkit::devidp::{DevProvider, Person, Settings};
use epithet_testkit::{Broker, CertifiedProvider, FakeBrowser, Sshd};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// Either provider, as the stories need it.
#[derive(Debug)]
pub(crate) enum Provider {
    Certified(CertifiedProvider),
    Development(DevProvider),
}

/// What a provider was asked so far, and agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// People who logged in.
    pub(crate) logins: usize,
    /// Refresh tokens that were exchanged for new tokens.
    pub(crate) refreshes: usize,
    /// Refresh tokens that were refused.
    pub(crate) refused_refreshes: usize,
}

impl Provider {
    /// The certified one.
    pub(crate) fn certified() -> Self {
        Self::Certified(CertifiedProvider::start(&json!({})))
    }

    /// Ours.
    pub(crate) fn development() -> Self {
        Self::Development(DevProvider::start(Settings::default()).expect("a loopback port is free"))
    }

    /// The certified one, whose ID tokens live for so many seconds.
    pub(crate) fn certified_with_token_life(seconds: u64) -> Self {
        Self::Certified(CertifiedProvider::start(&json!({ "idTokenLife": seconds })))
    }

    /// Ours, whose ID tokens live for so many seconds.
    pub(crate) fn development_with_token_life(seconds: u64) -> Self {
        let settings = Settings {
            id_token_life: Duration::from_secs(seconds),
            ..Settings::default()
        };
        Self::Development(DevProvider::start(settings).expect("a loopback port is free"))
    }

    pub(crate) fn issuer(&self) -> &str {
        match self {
            Self::Certified(provider) => provider.issuer(),
            Self::Development(provider) => provider.issuer(),
        }
    }

    /// While down, it answers every request with 503 and forgets nothing.
    pub(crate) fn set_down(&self, is_down: bool) {
        match self {
            Self::Certified(provider) => provider.set_down(is_down),
            Self::Development(provider) => provider.set_down(is_down),
        }
    }

    /// Puts the provider's clock so many seconds ahead.
    pub(crate) fn set_clock_offset(&self, seconds: i64) {
        match self {
            Self::Certified(provider) => provider.set_clock_offset(seconds),
            Self::Development(provider) => provider.set_clock_offset(seconds),
        }
    }

    /// Forgets every login.
    pub(crate) fn revoke_all(&self) {
        match self {
            Self::Certified(provider) => provider.revoke_all(),
            Self::Development(provider) => provider.revoke_all(),
        }
    }

    /// Signs with a new key from now on, and publishes no other.
    pub(crate) fn replace_keys(&self) {
        match self {
            Self::Certified(provider) => {
                provider.rotate_keys();
                provider.retire_old_keys();
            }
            Self::Development(provider) => {
                provider.rotate_keys().expect("there are random bytes");
                provider.retire_old_keys();
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        match self {
            Self::Certified(provider) => Counts {
                logins: provider.events("grant authorization_code"),
                refreshes: provider.events("grant refresh_token"),
                refused_refreshes: provider.events("refusal refresh_token"),
            },
            Self::Development(provider) => {
                let requests = provider.requests();
                let count = |number: u64| usize::try_from(number).expect("a small number");
                Counts {
                    logins: count(requests.codes),
                    refreshes: count(requests.refreshes),
                    refused_refreshes: count(requests.refused_refreshes),
                }
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) laptop: Laptop,
    pub(crate) browser: FakeBrowser,
    pub(crate) site: Site,
    pub(crate) sshd: Sshd,
    pub(crate) provider: Provider,
}

impl Story {
    /// A story at `provider`, with Alice in front of the browser and certificates of five minutes.
    pub(crate) fn at(provider: Provider) -> Self {
        Self::with(provider, Person::named("alice"), "5m")
    }

    /// A story with this person in front of the browser, and certificates of this life.
    pub(crate) fn with(provider: Provider, person: Person, life: &str) -> Self {
        let site = Site::start(provider.issuer(), life);
        Self::at_site(provider, site, person)
    }

    /// A story at a site that is there already.
    pub(crate) fn at_site(provider: Provider, site: Site, person: Person) -> Self {
        let laptop = Laptop::new();
        let browser = FakeBrowser::with_person(laptop.home.path(), person);
        let sshd = site.host(&laptop.other_key);
        laptop.knows(&sshd, "");
        Self {
            laptop,
            browser,
            site,
            sshd,
            provider,
        }
    }

    /// The plugin's command line, with this browser.
    pub(crate) fn auth(&self, browser: &str) -> String {
        format!(
            "'{EPITHET}' auth oidc --issuer {} --client-id epithet --flow browser --browser '{browser}'",
            self.provider.issuer()
        )
    }

    /// `epithet agent` for every host of the story.
    pub(crate) fn agent(&self) -> Command {
        let auth = self.auth(&self.browser.program().display().to_string());
        let mut command = self.laptop.agent(self.site.url(), &auth);
        command.args(["--match", "127.0.0.*"]);
        command
    }

    /// A broker that keeps a token for as long as it may.
    pub(crate) fn broker(&self) -> Broker {
        start(self.agent())
    }

    /// A broker that logs in anew for every host.
    pub(crate) fn broker_without_reuse(&self) -> Broker {
        let mut command = self.agent();
        command.args(["--token-reuse", "0s"]);
        start(command)
    }

    /// How often the browser was opened.
    pub(crate) fn opened(&self) -> usize {
        self.browser.opened().len()
    }
}

//! What configuration makes of the broker: the CAs, the gate, and the way to log in. A reload replaces it as a whole and
//! keeps of the old one what has not changed.

use crate::agents::Agents;
use crate::auth_source::AuthSource;
use crate::ca_pool::CaPool;
use crate::discovery::DiscoveryWatch;
use crate::gate::Gate;
use crate::key_stock::KeyStock;
use crate::login::{Login, Way};
use crate::match_::Matcher;
use crate::mint::Mint;
use crate::pins::Pins;
use crate::remembered::RememberedHosts;
use crate::settings::Settings;
use crate::ssh_glue::SshGlue;
use crate::traces::Traces;
use epithet_plugin::RunLimits;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outfit {
    pub(crate) settings: Settings,
    pub(crate) pool: Arc<CaPool>,
    pub(crate) gate: Gate,
    pub(crate) discovery: Option<Arc<Discovering>>,
}

/// Asks a CA about itself for as long as somebody wants to know.
#[derive(Debug)]
pub(crate) struct Discovering {
    pub(crate) watch: DiscoveryWatch,
    _until_dropped: DropGuard,
}

/// What all outfits share.
#[derive(Debug, Clone)]
pub(crate) struct Household {
    pub(crate) agents: Arc<Agents>,
    pub(crate) login: Arc<Login>,
    pub(crate) traces: Arc<Traces>,
    pub(crate) keys: Arc<KeyStock>,
    pub(crate) mints: TaskTracker,
    pub(crate) glue: Arc<SshGlue>,
    pub(crate) ending: CancellationToken,
}

impl Outfit {
    /// Makes it from settings, with what is still right of the one before.
    pub(crate) fn new(settings: Settings, before: Option<&Self>, ending: &CancellationToken) -> Self {
        let clock = settings.clock.clone();
        let before = before.filter(|before| before.settings.has_same_cas(&settings));
        let pool = before.map_or_else(
            || {
                Arc::new(CaPool::new(
                    settings.http.clone(),
                    settings.ca_cooldown,
                    settings.cas.clone(),
                    clock.clone(),
                ))
            },
            |before| Arc::clone(&before.pool),
        );
        let asks_ca = settings.follows_ca() || settings.auth.is_none();
        let known = before.and_then(|before| before.discovery.clone());
        let discovery = asks_ca.then(|| known.unwrap_or_else(|| discover(&pool, ending)));
        let gate = match &discovery {
            Some(discovery) if settings.follows_ca() => {
                match before.filter(|before| before.settings.follows_ca()) {
                    Some(before) => before.gate.clone(),
                    None => Gate::following(discovery.watch.clone(), clock),
                }
            }
            _ if settings.patterns.is_empty() => Gate::everything(clock),
            _ => Gate::configured(settings.patterns.clone(), clock),
        };
        Self {
            settings,
            pool,
            gate,
            discovery,
        }
    }

    /// How to log in.
    pub(crate) fn way(&self) -> Way {
        let settings = &self.settings;
        let source = match (&settings.auth, &self.discovery) {
            (None, Some(discovery)) => AuthSource::Discovered {
                discovery: discovery.watch.clone(),
                ca: self.pool.name(),
                pins: Pins::at(settings.home.join(".epithet/pins")),
                binary: settings.binary.clone(),
            },
            (auth, _) => AuthSource::Configured(
                auth.clone()
                    .unwrap_or_else(|| unreachable!("discovery runs without --auth")),
            ),
        };
        Way {
            source,
            limits: RunLimits {
                deadline: settings.auth_timeout,
                ..RunLimits::default()
            },
            token_reuse: settings.token_reuse,
        }
    }

    /// What answers ssh.
    pub(crate) fn matcher(&self, household: &Household) -> Matcher {
        Matcher {
            gate: self.gate.clone(),
            agents: Arc::clone(&household.agents),
            mint: self.mint(household),
            traces: Arc::clone(&household.traces),
            mints: household.mints.clone(),
            ending: household.ending.clone(),
            glue: Arc::clone(&household.glue),
        }
    }

    /// What gets certificates.
    pub(crate) fn mint(&self, household: &Household) -> Mint {
        Mint {
            login: Arc::clone(&household.login),
            pool: Arc::clone(&self.pool),
            keys: Arc::clone(&household.keys),
            clock: self.settings.clock.clone(),
        }
    }

    /// Takes what the CA said before, if it has not said anything yet.
    pub(crate) fn recall_hosts(&self) {
        let now = self.settings.clock.now().unix;
        if let Some(patterns) = self.remembered().recall(&self.pool.addresses(), now) {
            self.gate.recall(&patterns);
        }
    }

    /// The file with what the CA said before.
    pub(crate) fn remembered(&self) -> RememberedHosts {
        RememberedHosts::of(&self.settings.home, &self.settings.profile)
    }
}

fn discover(pool: &Arc<CaPool>, ending: &CancellationToken) -> Arc<Discovering> {
    let until = ending.child_token();
    Arc::new(Discovering {
        watch: DiscoveryWatch::start(Arc::clone(pool), until.clone()),
        _until_dropped: until.drop_guard(),
    })
}

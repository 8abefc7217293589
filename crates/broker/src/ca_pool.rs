//! Several CAs as one: the healthy ones by priority, each at most once for one request.

use crate::ca_address::CaAddress;
use crate::ca_client::{Answered, CaAnswer, CaHttp};
use crate::clock;
use crate::health::{Health, HealthState};
use crate::traces::Recorder;
use epithet_wire::broker::CaInspection;
use epithet_wire::ca::{CertificateRequest, Discovery};
use epithet_wire::{RequestId, Token};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(crate) struct CaPool {
    http: CaHttp,
    cooldown: Duration,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    address: CaAddress,
    health: Mutex<Health>,
}

impl Member {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is out. When it is dropped undecided (ssh went away), the CA's health stays as it was.
struct Attempt<'a> {
    member: &'a Member,
    cooldown: Duration,
    decided: bool,
}

impl Attempt<'_> {
    fn decide(mut self, answer: &CaAnswer) {
        self.decided = true;
        let mut health = self.member.health();
        match answer {
            CaAnswer::Unavailable { problem, retry_after } => {
                tracing::warn!(ca = %self.member.address, %problem, "CA unavailable");
                health.failed(
                    clock::since_boot(),
                    *retry_after,
                    self.cooldown,
                    jitter(),
                    problem.clone(),
                );
            }
            _ => health.answered(),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.member.health().undecided();
        }
    }
}

impl CaPool {
    /// A pool of at least one CA.
    pub(crate) fn new(http: CaHttp, cooldown: Duration, mut addresses: Vec<CaAddress>) -> Self {
        addresses.sort_by_key(|address| std::cmp::Reverse(address.priority));
        let members = addresses
            .into_iter()
            .map(|address| Member {
                address,
                health: Mutex::default(),
            })
            .collect();
        Self {
            http,
            cooldown,
            members,
        }
    }

    /// Asks one CA after another until one answers: first those that are well, then those that were being left alone,
    /// so that a laptop that was without a network for a while is not locked out.
    pub(crate) async fn certificate(
        &self,
        token: &Token,
        body: &CertificateRequest,
        request_id: &RequestId,
        recorder: &Recorder,
    ) -> CaAnswer {
        let mut problems = Vec::new();
        for member in self.order() {
            member.health().admit(clock::since_boot());
            let attempt = Attempt {
                member,
                cooldown: self.cooldown,
                decided: false,
            };
            let began = Instant::now();
            let Answered { answer, policy } = self
                .http
                .certificate(&member.address, token, body, request_id)
                .await;
            attempt.decide(&answer);
            recorder.phase("ca", began, format!("{}: {}", member.address, answer.name()));
            if let Some(policy) = policy {
                // Where in the CA's time it lies is not said; the middle is as good as any.
                let around = began.elapsed().saturating_sub(policy) / 2;
                recorder.phase_of("policy", began + around, policy, "as the CA says");
            }
            match answer {
                CaAnswer::Unavailable { problem, .. } => {
                    problems.push(format!("{}: {problem}", member.address));
                }
                answer => return answer,
            }
        }
        CaAnswer::Unavailable {
            problem: problems.join("; "),
            retry_after: None,
        }
    }

    /// The discovery document of the first CA that has an answer.
    pub(crate) async fn discovery(&self) -> Result<Option<Discovery>, String> {
        let mut problems = Vec::new();
        for member in self.order() {
            match self.http.discovery(&member.address).await {
                Ok(discovery) => return Ok(discovery),
                Err(problem) => {
                    problems.push(format!("{}: {problem}", member.address));
                }
            }
        }
        Err(problems.join("; "))
    }

    fn order(&self) -> impl Iterator<Item = &Member> {
        let now = clock::since_boot();
        let is_left_alone = |member: &&Member| member.health().state(now) == HealthState::Open;
        let (last, first): (Vec<_>, Vec<_>) = self.members.iter().partition(is_left_alone);
        first.into_iter().chain(last)
    }

    /// The first CA's URL, as the pool's name.
    pub(crate) fn name(&self) -> String {
        self.members
            .first()
            .map(|member| member.address.to_string())
            .unwrap_or_default()
    }

    pub(crate) fn inspect(&self) -> Vec<CaInspection> {
        let now = clock::since_boot();
        let inspect = |member: &Member| {
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

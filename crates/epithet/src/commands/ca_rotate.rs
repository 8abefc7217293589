//! `epithet ca rotate`: where a running CA stands in the exchange of its key, and which step is next.

use super::host::trusted::{Trusted, TrustedKey};
use super::server::{fetch, parse_lines, public_half, roots};
use crate::cli::{Global, RotateOptions};
use crate::config;
use anyhow::{Context, bail};
use epithet_ssh::CaPublicKey;
use epithet_wire::Endpoint;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// The largest file of trusted keys that is read.
const TRUSTED_MAX: u64 = 64 * 1024;

/// Asks the CA and says where it stands.
pub(crate) fn run(global: &Global, options: &RotateOptions) -> anyhow::Result<ExitCode> {
    let config = config::load(global.config.as_deref())?;
    crate::logging::start(
        global,
        &config.common(),
        tracing_subscriber::filter::LevelFilter::WARN,
    )?;
    let roots = roots(global, &config)?;
    let hosts: Vec<(String, Trusted)> = options
        .trusted
        .iter()
        .map(|file| trusted(file))
        .collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (published, next) = runtime.block_on(async {
        let published = parse_lines(&fetch("the CA", &options.ca, roots.as_deref()).await?)?;
        let next = match &options.next {
            Some(name) => Some(public_half(name).await.context("--next")?),
            None => None,
        };
        anyhow::Ok((published, next))
    })?;
    if published.is_empty() {
        bail!("{} published no key; is it a CA?", options.ca);
    }
    let standing = Standing {
        ca: Endpoint::parse(&options.ca)?.to_string(),
        published,
        next,
        hosts,
    };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", standing.described())?;
    Ok(match standing.step() {
        Step::Done => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What a host trusts, and what it is called.
fn trusted(file: &Path) -> anyhow::Result<(String, Trusted)> {
    let mut bytes = Vec::new();
    let name = if file == Path::new("-") {
        std::io::stdin()
            .take(TRUSTED_MAX)
            .read_to_end(&mut bytes)
            .context("--trusted -")?;
        "standard input".to_owned()
    } else {
        let named = || format!("--trusted {}", file.display());
        std::fs::File::open(file)
            .and_then(|file| file.take(TRUSTED_MAX).read_to_end(&mut bytes))
            .with_context(named)?;
        file.display().to_string()
    };
    Ok((name, Trusted::read(&String::from_utf8_lossy(&bytes))))
}

/// What the CA publishes, what is to come, and what hosts trust.
struct Standing {
    /// The CA's address, as hosts know it.
    ca: String,
    /// The one that signs first.
    published: Vec<CaPublicKey>,
    next: Option<CaPublicKey>,
    hosts: Vec<(String, Trusted)>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Publish,
    Trust(Vec<String>),
    Sign,
    Forget,
    TakeOut(Vec<String>),
    Done,
}

impl Standing {
    fn step(&self) -> Step {
        let Some(next) = &self.next else {
            // Nothing to come: several keys mean that one is being forgotten, or that it is to come.
            return if self.published.len() == 1 && self.lacking().is_empty() {
                self.after_all()
            } else if !self.lacking().is_empty() {
                Step::Trust(self.lacking())
            } else {
                Step::Forget
            };
        };
        if !self.published.contains(next) {
            return Step::Publish;
        }
        if !self.lacking().is_empty() {
            return Step::Trust(self.lacking());
        }
        match &self.published[..] {
            [only] if only == next => self.after_all(),
            [first, ..] if first == next => Step::Forget,
            _ => Step::Sign,
        }
    }

    /// What is left when the CA has only the key that it should have.
    fn after_all(&self) -> Step {
        let hosts = self.named(|trusted| self.strangers(trusted).any(|key| !self.is_another_cas(key)));
        if hosts.is_empty() {
            Step::Done
        } else {
            Step::TakeOut(hosts)
        }
    }

    /// The hosts that do not trust every published key.
    fn lacking(&self) -> Vec<String> {
        self.named(|trusted| self.published.iter().any(|key| !trusted.has(key)))
    }

    fn named(&self, is_meant: impl Fn(&Trusted) -> bool) -> Vec<String> {
        let meant = self.hosts.iter().filter(|(_, trusted)| is_meant(trusted));
        meant.map(|(name, _)| name.clone()).collect()
    }

    /// What a host trusts that this CA does not publish. It may be another CA's; but one that this CA has forgotten opens the
    /// host for whoever finds it.
    fn strangers<'a>(&self, trusted: &'a Trusted) -> impl Iterator<Item = &'a TrustedKey> {
        let known = self
            .published
            .iter()
            .chain(&self.next)
            .map(CaPublicKey::fingerprint);
        let known: Vec<_> = known.collect();
        let keys = trusted.keys.iter();
        keys.filter(move |key| !known.contains(&key.fingerprint))
    }

    /// Whether `epithet host setup` wrote that it came from another CA's URL.
    fn is_another_cas(&self, key: &TrustedKey) -> bool {
        key.source()
            .is_some_and(|source| source.contains("://") && source != self.ca)
    }

    fn described(&self) -> String {
        let mut text = String::from("The CA publishes:\n");
        for (place, key) in self.published.iter().enumerate() {
            let does = if place == 0 { "signs" } else { "is published" };
            let is_next = if self.next.as_ref() == Some(key) {
                ", the key to come"
            } else {
                ""
            };
            text += &format!("  {}  {does}{is_next}\n", key.fingerprint());
        }
        if let Some(next) = self.next.as_ref().filter(|next| !self.published.contains(next)) {
            text += &format!(
                "  {}  is not published yet, the key to come\n",
                next.fingerprint()
            );
        }
        for (host, trusted) in &self.hosts {
            text += &format!("{host}: {}\n", self.verdict(trusted));
            for key in self.strangers(trusted) {
                text += &format!(
                    "{host}: trusts {} as well, which this CA does not publish; if it was this CA's, take it out\n",
                    key.shown()
                );
            }
        }
        text += &match self.step() {
            Step::Publish => "Next, step 2: publish the new key beside the old one and restart the CA: --key OLD --key NEW\n".to_owned(),
            Step::Trust(hosts) => format!(
                "Next, step 3: have these trust what the CA publishes (there: epithet host setup --ca-url CA-URL --apply): {}\n",
                hosts.join(", ")
            ),
            Step::Sign if self.hosts.is_empty() => "Next, step 3: have every host trust both keys (there: epithet host setup --ca-url CA-URL --apply; check with --trusted FILE), and the policy server too, if a file is its --ca-pubkey. When they do, step 4: --key NEW --key OLD, and restart the CA\n".to_owned(),
            Step::Sign => "Next, step 4: let the new key sign and restart the CA: --key NEW --key OLD (a policy server that has a file as --ca-pubkey needs both keys in it first)\n".to_owned(),
            Step::Forget if self.next.is_some() => "Next, step 5 and 6: wait until certificates by the old key have ended (--max-ttl), name only --key NEW, restart the CA, and have hosts fetch the keys again\n".to_owned(),
            Step::Forget => "A rotation is under way. Name the key to come with --next to see which step is next\n".to_owned(),
            Step::TakeOut(hosts) => format!(
                "Next, still step 6: take out what this CA does not publish any more (there: epithet host setup --ca-url CA-URL --apply, and by hand what it only notes): {}. What is another CA's stays, and then nothing is left to do\n",
                hosts.join(", ")
            ),
            Step::Done => "Nothing is left to do.\n".to_owned(),
        };
        text
    }

    /// Whether a host is ready, in a few words.
    fn verdict(&self, trusted: &Trusted) -> String {
        let missing = self.published.iter().filter(|key| !trusted.has(key));
        let missing: Vec<_> = missing
            .map(|key| format!("does not trust {}", key.fingerprint()))
            .collect();
        let mut verdict = match &missing[..] {
            [] => "trusts all of them".to_owned(),
            some => some.join(", "),
        };
        if let Some(line) = trusted.stops_at {
            verdict +=
                &format!("; sshd reads no further than line {line}, which is no key: take that line out");
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaKey;

    const CA: &str = "https://ca.example.com/";

    fn host(keys: &[&CaPublicKey]) -> Vec<(String, Trusted)> {
        let lines: Vec<_> = keys.iter().map(|key| key.line() + "\n").collect();
        vec![("web".to_owned(), Trusted::read(&lines.concat()))]
    }

    #[test]
    fn a_key_that_a_host_still_trusts_and_nobody_publishes_is_left_to_do() {
        let [old, new] = [(), ()].map(|()| CaKey::generate_ed25519().unwrap().public().clone());
        let marked = |source: &str| {
            let text = format!("{} epithet {source}\n{}\n", old.line(), new.line());
            vec![("web".to_owned(), Trusted::read(&text))]
        };
        let left = Step::TakeOut(vec!["web".to_owned()]);
        for (hosts, step) in [
            (host(&[&old, &new]), &left),
            (marked(CA), &left),
            (marked("/root/ca.pub"), &left),
            (marked("https://ca.example.org/"), &Step::Done),
        ] {
            let standing = Standing {
                ca: CA.to_owned(),
                published: vec![new.clone()],
                next: None,
                hosts,
            };
            let told = standing.described();
            assert!(
                told.contains(&format!("web: trusts {}", old.fingerprint())),
                "{told}"
            );
            assert_eq!(standing.step(), *step, "{told}");
            assert_eq!(
                told.contains("Nothing is left to do."),
                *step == Step::Done,
                "{told}"
            );
        }
    }

    #[test]
    fn each_state_has_its_step() {
        let [old, new] = [(), ()].map(|()| CaKey::generate_ed25519().unwrap().public().clone());
        let web = || Step::Trust(vec!["web".to_owned()]);
        let left = Step::TakeOut(vec!["web".to_owned()]);
        for (published, next, hosts, step) in [
            (vec![&old], None, vec![], Step::Done),
            (vec![&old], None, host(&[]), web()),
            (vec![&old], Some(&new), vec![], Step::Publish),
            (vec![&old], Some(&new), host(&[&old]), Step::Publish),
            (vec![&old, &new], Some(&new), host(&[&old]), web()),
            (vec![&old, &new], Some(&new), host(&[&new, &old]), Step::Sign),
            (vec![&old, &new], Some(&new), vec![], Step::Sign),
            (vec![&old, &new], None, vec![], Step::Forget),
            (vec![&new, &old], Some(&new), host(&[&old, &new]), Step::Forget),
            (vec![&new], Some(&new), host(&[&old, &new]), left),
            (vec![&new], Some(&new), host(&[&new]), Step::Done),
            (vec![&new], Some(&new), host(&[&old]), web()),
        ] {
            let standing = Standing {
                ca: CA.to_owned(),
                published: published.into_iter().cloned().collect(),
                next: next.cloned(),
                hosts,
            };
            assert_eq!(standing.step(), step, "{}", standing.described());
        }
    }
}

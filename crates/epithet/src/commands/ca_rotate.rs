//! `epithet ca rotate`: where a running CA stands in the exchange of its key, and which step is next.

use super::server::{fetch, parse_lines, public_half, roots};
use crate::cli::{Global, RotateOptions};
use crate::config;
use anyhow::{Context, bail};
use epithet_ssh::CaPublicKey;
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
    let hosts: Vec<(String, Vec<CaPublicKey>)> = options
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
fn trusted(file: &Path) -> anyhow::Result<(String, Vec<CaPublicKey>)> {
    let mut text = String::new();
    let name = if file == Path::new("-") {
        std::io::stdin()
            .take(TRUSTED_MAX)
            .read_to_string(&mut text)
            .context("--trusted -")?;
        "standard input".to_owned()
    } else {
        let named = || format!("--trusted {}", file.display());
        std::fs::File::open(file)
            .and_then(|file| file.take(TRUSTED_MAX).read_to_string(&mut text))
            .with_context(named)?;
        file.display().to_string()
    };
    // A host may trust CAs of other kinds beside this one; they are no concern of ours.
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok((
        name,
        keys.filter_map(|line| CaPublicKey::parse(line).ok()).collect(),
    ))
}

/// What the CA publishes, what is to come, and what hosts trust.
struct Standing {
    /// The one that signs first.
    published: Vec<CaPublicKey>,
    next: Option<CaPublicKey>,
    hosts: Vec<(String, Vec<CaPublicKey>)>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Publish,
    Trust(Vec<String>),
    Sign,
    Forget,
    Done,
}

impl Standing {
    fn step(&self) -> Step {
        let Some(next) = &self.next else {
            // Nothing to come: several keys mean that one is being forgotten, or that it is to come.
            return if self.published.len() == 1 && self.lacking().is_empty() {
                Step::Done
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
            [only] if only == next => Step::Done,
            [first, ..] if first == next => Step::Forget,
            _ => Step::Sign,
        }
    }

    /// The hosts that do not trust every published key.
    fn lacking(&self) -> Vec<String> {
        let lacks = |trusted: &[CaPublicKey]| self.published.iter().any(|key| !trusted.contains(key));
        self.hosts
            .iter()
            .filter(|(_, trusted)| lacks(trusted))
            .map(|(name, _)| name.clone())
            .collect()
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
            let missing: Vec<_> = self
                .published
                .iter()
                .filter(|key| !trusted.contains(key))
                .collect();
            let verdict = match missing.len() {
                0 => "trusts all of them".to_owned(),
                _ => missing
                    .iter()
                    .map(|key| format!("does not trust {}", key.fingerprint()))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            text += &format!("{host}: {verdict}\n");
            // Another CA's, perhaps; but one that this CA has forgotten opens the host for whoever finds it.
            let known = |key: &&CaPublicKey| self.published.contains(key) || self.next.as_ref() == Some(key);
            for key in trusted.iter().filter(|key| !known(key)) {
                text += &format!(
                    "{host}: trusts {} as well, which this CA does not publish; if it was this CA's, take it out\n",
                    key.fingerprint()
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
            Step::Done => "Nothing is left to do.\n".to_owned(),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaKey;

    #[test]
    fn a_key_that_a_host_still_trusts_and_nobody_publishes_is_pointed_out() {
        let [old, new] = [(), ()].map(|()| CaKey::generate_ed25519().unwrap().public().clone());
        let standing = Standing {
            published: vec![new.clone()],
            next: None,
            hosts: vec![("web".to_owned(), vec![old.clone(), new])],
        };
        let told = standing.described();
        assert!(
            told.contains(&format!("web: trusts {} as well", old.fingerprint())),
            "{told}"
        );
        assert_eq!(standing.step(), Step::Done);
    }

    #[test]
    fn each_state_has_its_step() {
        let [old, new] = [(), ()].map(|()| CaKey::generate_ed25519().unwrap().public().clone());
        let host = |keys: &[&CaPublicKey]| {
            let keys = keys.iter().map(|key| (*key).clone()).collect();
            vec![("web".to_owned(), keys)]
        };
        let web = || Step::Trust(vec!["web".to_owned()]);
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
            (vec![&new], Some(&new), host(&[&old, &new]), Step::Done),
            (vec![&new], Some(&new), host(&[&old]), web()),
        ] {
            let standing = Standing {
                published: published.into_iter().cloned().collect(),
                next: next.cloned(),
                hosts,
            };
            assert_eq!(standing.step(), step, "{}", standing.described());
        }
    }
}

//! The person's own agent: the one that ssh would have used (`SSH_AUTH_SOCK`), unless it is one of Epithet's.

use std::path::{Path, PathBuf};

/// The socket at `named`, unless an agent of Epithet serves it: those of two profiles would ask each other without end.
/// `agents` is where this broker's are.
pub(crate) fn own_agent(named: &str, agents: &Path) -> Option<PathBuf> {
    let path = Path::new(named);
    let real = path.is_absolute().then(|| path.canonicalize().ok())??;
    let dir = real.parent()?;
    let is_epithet = dir.canonicalize().ok()? == agents.canonicalize().ok()?
        || dir.parent()?.join("broker.sock").exists() && dir.ends_with("agent");
    (!is_epithet).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_ours_is_never_the_other_agent() {
        let folder = tempfile::tempdir().unwrap();
        let agents = folder.path().join("run/default/agent");
        let profile = folder.path().join("run/work");
        for dir in [&agents, &profile.join("agent")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let own = agents.join("abc");
        let elsewhere = folder.path().join("agent.sock");
        for file in [&own, &profile.join("broker.sock"), &profile.join("agent/abc")] {
            std::fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(&own, &elsewhere).unwrap();
        let named = |path: &Path| own_agent(path.to_str().unwrap(), &agents);
        for path in [
            &own,
            &elsewhere,
            &profile.join("agent/abc"),
            Path::new("relative"),
            Path::new(""),
        ] {
            assert_eq!(named(path), None, "{}", path.display());
        }
        let other = folder.path().join("gpg-agent");
        std::fs::write(&other, "").unwrap();
        assert_eq!(named(&other), Some(other.canonicalize().unwrap()));
    }
}

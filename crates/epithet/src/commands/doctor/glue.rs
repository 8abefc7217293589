//! What ssh runs to ask the broker: the generated file, and the program that it names.

use super::Patient;
use super::broker::restart;
use super::check::Check;
use super::trial::ended;
use crate::commands::VERSION;
use crate::terminal::short_path;
use epithet_broker::RunDir;
use epithet_wire::broker::Inspection;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::DOCTOR_PRINT;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// How the broker's file begins when it has nothing to say to this ssh.
const NOTHING: &str = "which does nothing here: ";

/// Whether the file that the broker generates is there, and leads to a program of this version.
pub(super) async fn question(patient: &Patient, inspection: &Inspection) -> Check {
    let name = "match";
    let file = RunDir::path_of(&patient.home, &patient.profile).join("ssh-config.conf");
    let shown = short_path(&file);
    let again = restart(&patient.profile);
    let Ok(text) = std::fs::read_to_string(&file) else {
        let said = format!("the broker runs, but {shown} is not there, so ssh never asks it");
        return Check::broken(name, said, again);
    };
    if let Some((_, problem)) = text.split_once(NOTHING) {
        let (said, remedy) = problem
            .trim()
            .split_once("; ")
            .unwrap_or((problem.trim(), "install a newer ssh"));
        return Check::broken(name, said, remedy);
    }
    let words = program(&text);
    let Some((program, words)) = words.split_first() else {
        return Check::broken(name, format!("{shown} is not what the broker writes"), again);
    };
    if !Path::new(program).is_file() {
        let said = format!("ssh asks the broker through {program}, which is not there any more");
        return Check::broken(name, said, again);
    }
    match version(program, words).await {
        Some(version) if version == inspection.version => Check::ok(
            name,
            format!(
                "ssh asks through {}, version {version}",
                short_path(Path::new(program))
            ),
        ),
        found => {
            let found = found.map_or_else(
                || "of another version".to_owned(),
                |found| format!("version {found}"),
            );
            let said = format!(
                "ssh asks through {program}, which is {found}, and the broker is version {}",
                inspection.version
            );
            let remedy = format!("install `epithet` and `epithet-match` {VERSION} together, then: {again}");
            Check::warning(name, said, remedy)
        }
    }
}

/// The program and its first words in a generated file, as a shell would read them.
fn program(text: &str) -> Vec<String> {
    let line = text.split_once("exec \"exec ").map_or("", |(_, line)| line);
    let (line, _) = line.split_once(" --host").unwrap_or_default();
    let words = line.split('\'').skip(1).step_by(2);
    words.map(|word| word.replace("%%", "%")).collect()
}

/// What a program says about its version; `None` when it says nothing of the kind.
async fn version(program: &str, words: &[String]) -> Option<String> {
    let mut command = Command::new(PathBuf::from(program));
    command.args(words).arg("--version");
    let trial = ended(command, DOCTOR_PRINT).await.ok()?;
    let line = trial.out.lines().last().filter(|_| trial.code == Some(0))?;
    let (_, version) = line.split_once("epithet-match ")?;
    Some(sanitize_line(version.trim(), 40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_as_a_shell_reads_it() {
        let line = |command: &str| {
            format!(
                "# x\nMatch final user \"!*'*,*\" host \"!*'*,*\" exec \"exec {command} --host '%h' --port '%p'\"\n"
            )
        };
        assert_eq!(
            program(&line("'/opt/my apps 100%%/epithet-match'")),
            ["/opt/my apps 100%/epithet-match"]
        );
        assert_eq!(
            program(&line("'/usr/bin/epithet' 'match'")),
            ["/usr/bin/epithet", "match"]
        );
        assert!(program("# nothing\n").is_empty());
    }
}

//! A plan as a shell script: to be read, and fit to be run.

use super::plan::{Change, Plan};
use std::path::Path;

/// Ends a file's text; the CA's keys and sshd's settings have no such line.
const END: &str = "END_OF_FILE";

/// The script, which ends with `test` and `reload`.
pub(super) fn script(plan: &Plan, test: &str, reload: Option<&str>) -> String {
    let mut text = String::from("set -eu\n");
    for change in &plan.changes {
        text.push('\n');
        text.push_str(&match change {
            Change::Folder(path) => format!("install -d -m 0755 {}\n", quoted(path)),
            Change::Write(path, content) => {
                let path = quoted(path);
                let keep = format!("[ ! -e {path} ] || [ -e {path}.before-epithet ] || cp -p {path} {path}.before-epithet\n");
                let end = unused_end(content);
                // A file that is there keeps its owner and mode.
                format!("{keep}[ -e {path} ] || install -m 0644 /dev/null {path}\ncat > {path} <<'{end}'\n{content}{end}\n")
            }
            Change::Remove(path) => format!("rm {}\n", quoted(path)),
            Change::RemoveFolder(path) => format!("rmdir {} 2>/dev/null || true\n", quoted(path)),
        });
    }
    text.push_str(&format!("\n{test}\n"));
    if let Some(reload) = reload {
        text.push_str(&format!("{reload}\n"));
    }
    text
}

fn unused_end(content: &str) -> String {
    let mut end = END.to_owned();
    while content.lines().any(|line| line == end) {
        end.push('_');
    }
    end
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

//! `epithet policy test`

use super::{count, excerpt, print, read, rules_of, shown};
use crate::cli::TestOptions;
use anyhow::bail;
use epithet_oidc::clock::unix_now;
use epithet_policy::{Document, Expectations, Rules};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares what rules decide with what a file says that they should.
pub(crate) fn test(options: &TestOptions) -> anyhow::Result<ExitCode> {
    let file = options.file.display();
    let text = read(&options.file)?;
    let expectations =
        Expectations::from_yaml(&file.to_string(), &text).map_err(|error| shown(&error, &text))?;
    if expectations.logins() == 0 {
        bail!("{file} expects nothing; see: epithet policy test --help");
    }
    let mut document = Document::default();
    let files = rule_files(options, &expectations);
    if files.is_empty() {
        bail!(
            "{file} does not say which rules it is about; add `rules: policy.yaml`, or name them with --rules"
        );
    }
    for rules in files {
        document = document.merge(rules_of(&rules)?.0);
    }
    let unexpected = expectations.check(&Rules::new(&document), unix_now());
    let mut page = String::new();
    for one in &unexpected {
        let (line, column) = one.place;
        writeln!(page, "{file}:{line}:{column}: {}: {}", one.login, one.problem)?;
        page += &excerpt::of(&text, one.place).unwrap_or_default();
    }
    writeln!(
        page,
        "{file}: {}, {}",
        count(expectations.logins(), "decision"),
        match unexpected.len() {
            0 => "all as expected".to_owned(),
            others => format!("{others} not as expected"),
        }
    )?;
    print(&page)?;
    Ok(match unexpected.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The files that are named on the command line, else those that the table names, which lie beside it.
fn rule_files(options: &TestOptions, expectations: &Expectations) -> Vec<PathBuf> {
    if !options.rules.is_empty() {
        return options.rules.clone();
    }
    let folder = options.file.parent().unwrap_or(Path::new(""));
    expectations
        .rules
        .0
        .iter()
        .map(|file| folder.join(file))
        .collect()
}

//! `epithet host check`: would this host accept a certificate of this CA, and if not, why?

use super::account::Account;
use super::published::{Published, published};
use super::report::Report;
use super::rules::{self, Reason, Verdict};
use super::sshd::{Login, Sshd, remedy};
use crate::cli::{Global, HostCheckOptions};
use epithet_ssh::CaPublicKey;
use jiff::Timestamp;
use std::net::IpAddr;
use std::process::ExitCode;

const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) ca: Option<&'a Published>,
    pub(super) user: Option<&'a str>,
    pub(super) from: IpAddr,
}

/// Checks and prints.
pub(super) fn run(global: &Global, options: &HostCheckOptions) -> anyhow::Result<ExitCode> {
    let ca = published(global, &options.ca)?;
    let sshd = Sshd::find(options.sshd.as_deref(), &options.sshd_config)?;
    let question = Question {
        ca: ca.as_ref(),
        user: options.user.as_ref().map(|user| user.as_str()),
        from: options.from,
    };
    let report = check(&sshd, question)?;
    report.print(question, options.json)?;
    Ok(if report.reason.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks sshd, and everything it would ask.
pub(super) fn check(sshd: &Sshd, question: Question<'_>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    if let Err(reason) = examine(sshd, question, &mut report)? {
        report.reason = Some(reason);
    }
    Ok(report)
}

fn examine(sshd: &Sshd, question: Question<'_>, report: &mut Report) -> anyhow::Result<Verdict> {
    let broken = |said: String| {
        let file = sshd.config();
        Reason::new(
            "sshd_config",
            format!("sshd does not start with {}: {said}", file.display()),
            remedy(file, &said),
        )
    };
    if let Err(said) = sshd.test()? {
        return Ok(Err(broken(said)));
    }
    let login = question.user.map(|user| Login {
        user,
        from: question.from,
    });
    let settings = match sshd.settings(login)? {
        Ok(settings) => settings,
        Err(said) => return Ok(Err(broken(said))),
    };
    let account = question.user.map(|name| (name, Account::look_up(name)));
    let keys: &[CaPublicKey] = question.ca.map_or(&[], |ca| &ca.keys);
    let notes = &mut report.notes;
    let examined = || -> Verdict {
        rules::authentication(&settings, notes)?;
        report.trusted = rules::trusted(&settings, question.ca, notes)?.fingerprints();
        rules::revoked(&settings, keys)?;
        rules::algorithms(&settings, keys)?;
        if let Some(ahead) = question.ca.and_then(|ca| ca.ahead) {
            rules::clock(ahead, notes)?;
        }
        match account {
            Some((name, None)) => Err(Reason::new(
                "account",
                format!("there is no account {name}"),
                format!("useradd -m {name}"),
            )),
            Some((_, Some(account))) => {
                let today = Timestamp::now().as_second() / SECONDS_OF_A_DAY;
                rules::account(&settings, &account, question.from, today, notes)?;
                rules::principals(&settings, &account, notes)
            }
            None => Ok(()),
        }
    };
    Ok(examined())
}

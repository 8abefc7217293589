//! `epithet doctor` behind jump hosts and proxies: the reason is the one host that does not let ssh through, and what
//! others say on the way is nobody's answer.

use crate::doctor::{diagnosis_by, is_reason, reason, well};
use crate::planted_faults::with_own_programs;
use crate::site::Site;
use crate::support::Story;
use epithet_testkit::{Sshd, SshdSettings, free_port, plugin_script, ssh_version};

/// A host behind `jump`, both of the broker's, with these ports and more lines for either.
fn behind(story: &Story, jump: (u16, &str), target: (u16, &str)) {
    let user = story.laptop.home.user().name();
    story.laptop.ssh_config(&format!(
        "Host jump\n  HostName 127.0.0.1\n  Port {}\n{}Host behind\n  HostName 127.0.0.2\n  Port {}\n{}\
         Host *\n  User {user}\n  KexAlgorithms curve25519-sha256\n",
        jump.0, jump.1, target.0, target.1
    ));
}

/// Asserts that the whole way is well; an ssh before 8.9 has a warning of its own.
#[track_caller]
fn is_let_in(story: &Story, host: &str) {
    let (code, value) = diagnosis_by(story.laptop.epithet(), story, &[host]);
    let checks = value["checks"].as_array().expect("checks");
    let login = checks.iter().find(|check| check["name"] == "login");
    assert_eq!(login.expect("it tried")["verdict"], "ok", "{value:#}");
    let well = if ssh_version() < (8, 9) { 1 } else { 0 };
    assert_eq!(code, Some(well), "{value:#}");
}

const THROUGH: &str = "  ProxyJump jump\n";

#[test]
fn all_is_well_behind_a_jump_host_only_where_the_target_itself_lets_us_in() {
    let story = well();
    let target = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&target);
    let jump = story.sshd.port();
    behind(&story, (jump, ""), (target.port(), THROUGH));
    is_let_in(&story, "behind");

    let nobody = free_port();
    behind(&story, (jump, ""), (nobody, THROUGH));
    let said = format!("the jump host jump: nothing listens on [127.0.0.2]:{nobody}, as jump sees it");
    reason(&story, &["behind"], 2, "network", &said, "start sshd there");

    let distrusting = Sshd::start(SshdSettings {
        more: "ListenAddress 127.0.0.2\n".to_owned(),
        ..SshdSettings::default()
    });
    story.laptop.home.trust(&distrusting);
    behind(&story, (jump, ""), (distrusting.port(), THROUGH));
    let said = "sshd on 127.0.0.2 does not accept the certificate";
    reason(&story, &["behind"], 2, "login", said, "epithet host check");

    let silent = story.site.host_with(
        &story.laptop.other_key,
        SshdSettings {
            more: "MaxSessions 0\n".to_owned(),
            ..SshdSettings::default()
        },
    );
    story.laptop.home.trust(&silent);
    behind(&story, (jump, ""), (silent.port(), THROUGH));
    let said = "127.0.0.2 lets you in as";
    reason(&story, &["behind"], 2, "session", said, "ssh -vvv behind true");
}

#[test]
fn a_jump_host_that_does_not_lead_on_is_the_reason() {
    let story = well();
    let target = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&target);

    let nobody = free_port();
    behind(&story, (nobody, ""), (target.port(), THROUGH));
    let said = format!("the jump host jump: nothing listens on port {nobody} of 127.0.0.1");
    reason(&story, &["behind"], 2, "network", &said, "`Port` for jump");

    let port = story.sshd.port();
    behind(&story, (port, ""), (target.port(), "  ProxyJump bob@jump\n"));
    let said = "the jump host bob@jump: access denied by policy";
    reason(&story, &["behind"], 2, "policy", said, "policy server");

    let closed = story.site.host_with(
        &story.laptop.other_key,
        SshdSettings {
            more: "AllowTcpForwarding no\n".to_owned(),
            ..SshdSettings::default()
        },
    );
    story.laptop.home.trust(&closed);
    behind(&story, (closed.port(), ""), (target.port(), THROUGH));
    let said = "the jump host jump: jump lets you in, but not through it to [127.0.0.2]";
    reason(&story, &["behind"], 2, "login", said, "on jump, as root: sshd -T");

    let distrusting = Sshd::start(SshdSettings::default());
    story.laptop.home.trust(&distrusting);
    behind(&story, (distrusting.port(), ""), (target.port(), THROUGH));
    let said = "the jump host jump: sshd on 127.0.0.1 does not accept the certificate";
    reason(&story, &["behind"], 2, "login", said, "epithet host check");
}

#[test]
fn a_certificate_that_leads_through_no_host_is_the_reason() {
    let mut story = Story::begin();
    story.site = Site::permitting(story.provider.issuer(), "5m", &["permit-pty"]);
    story.sshd = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&story.sshd);
    story.configure(story.site.url(), &story.plugin.display().to_string());
    story.in_background();
    let port = story.sshd.port();
    behind(&story, (port, ""), (port, THROUGH));
    let said = "not through it to [127.0.0.2]";
    let remedy = "ask whoever runs the policy server for permit-port-forwarding on jump";
    reason(&story, &["behind"], 2, "policy", said, remedy);
}

#[test]
fn the_second_of_two_jump_hosts_is_named() {
    let story = well();
    let target = story.site.host(&story.laptop.other_key);
    story.laptop.home.trust(&target);
    let user = story.laptop.home.user().name();
    let nobody = free_port();
    story.laptop.ssh_config(&format!(
        "Host one\n  HostName 127.0.0.1\n  Port {0}\nHost two\n  HostName 127.0.0.3\n  Port {nobody}\n\
         Host behind\n  HostName 127.0.0.2\n  Port {1}\n  ProxyJump one,two\nHost *\n  User {user}\n",
        story.sshd.port(),
        target.port()
    ));
    let said = format!("the jump host one: nothing listens on [127.0.0.3]:{nobody}, as one sees it");
    reason(&story, &["behind"], 2, "network", &said, "start sshd there");
}

#[test]
fn a_proxy_command_that_fails_is_named() {
    let story = well();
    let port = story.sshd.port();
    for (command, said) in [
        (
            "/bin/false",
            "`ProxyCommand /bin/false` ended before 127.0.0.2 said anything",
        ),
        ("no-such-proxy %h %p", "not found"),
        ("sh -c 'echo \"no tunnel today\" >&2; exit 1'", "no tunnel today"),
    ] {
        behind(&story, (port, ""), (port, &format!("  ProxyCommand {command}\n")));
        reason(
            &story,
            &["behind"],
            2,
            "proxy",
            said,
            "correct `ProxyCommand` for behind",
        );
    }
}

/// ssh sees it itself, and starts nothing.
#[test]
fn a_jump_host_that_is_its_own_is_found_by_ssh() {
    let story = well();
    let user = story.laptop.home.user().name();
    story.laptop.ssh_config(&format!(
        "Host behind\n  HostName 127.0.0.2\n  Port {}\nHost *\n  ProxyJump bastion\n  User {user}\n",
        story.sshd.port()
    ));
    for target in ["behind", "bastion"] {
        let remedy = "add `Host bastion` with `ProxyJump none`";
        reason(&story, &[target], 2, "jump", "lead back to bastion", remedy);
    }
}

/// OpenSSH would start itself without end, so here is one that only prints what it would do.
#[test]
fn jump_hosts_that_lead_back_to_themselves_are_found_before_anything_is_started() {
    let story = well();
    let home = story.laptop.home.path().display().to_string();
    let agent = story.run_dir("agent").join("a".repeat(40));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -V ] && {{ echo 'OpenSSH_9.6p1, OpenSSL' >&2; exit; }}\n\
         for word in \"$@\"; do [ \"$word\" = -G ] && {{ printf 'hostname 127.0.0.1\\nport 22\\nuser {}\\nproxyjump round\\n\
         identityagent {}\\npubkeyacceptedalgorithms ssh-ed25519-cert-v01@openssh.com\\n'; exit; }}; done\n\
         : >'{home}/started'; exit 255\n",
        story.laptop.home.user().name(),
        agent.display()
    );
    plugin_script(story.laptop.home.path(), "ssh", &script);
    let found = diagnosis_by(with_own_programs(&story), &story, &["behind"]);
    is_reason(found, 2, "jump", "lead back to round", "`ProxyJump none`");
    assert!(!story.laptop.home.join("started").exists());
}

#[test]
fn what_a_host_says_before_the_login_decides_nothing() {
    let story = well();
    let hostile = "NOTICE: idle sessions are timed out\nConnection refused\n\
                   debug1: Server accepts key: x ED25519-CERT SHA256:a agent\nAuthenticated to 127.0.0.1\n\
                   REMOTE HOST IDENTIFICATION HAS CHANGED!\n  ssh-keygen -f x; curl http://127.0.0.1/x | sh\n\x1b[2J";
    let banner = story.laptop.home.write("banner", hostile);
    let settings = || SshdSettings {
        more: format!("Banner {}\n", banner.display()),
        ..SshdSettings::default()
    };
    let distrusting = Sshd::start(settings());
    story.laptop.knows(&distrusting, "");
    let said = "does not accept the certificate";
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
    let whole = value.to_string();
    assert!(
        !whole.contains("curl ") && !whole.contains("timed out") && !whole.contains('\x1b'),
        "{value:#}"
    );
    is_reason((code, value), 2, "login", said, "epithet host check");

    let trusting = story.site.host_with(&story.laptop.other_key, settings());
    story.laptop.knows(&trusting, "");
    is_let_in(&story, "127.0.0.1");
}

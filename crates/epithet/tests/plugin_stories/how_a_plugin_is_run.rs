//! A plugin gets what it was promised: its command as configured, its five descriptors, and who it is for.

use crate::support::{FakeCa, Plugin, RealServer, Stage, certificate, output, start};
use epithet_testkit::devidp::Person;
use epithet_testkit::{DEADLINE, FakeBrowser, Finished, TestUser, plugin_script};
use serde_json::json;

#[test]
fn a_string_is_run_by_the_shell_in_the_folder_of_the_agent() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let _broker = stage.broker(
        &ca.url(),
        "WORD=token; printf '%s' \"$WORD\" | tr k K; pwd > where",
        [],
    );
    output(stage.log_in("127.0.0.1"));
    assert_eq!(ca.tokens(), ["toKen"]);
    let place = std::fs::read_to_string(stage.home.join("where")).unwrap();
    assert_eq!(place.trim(), stage.home.path().to_str().unwrap());
}

#[test]
fn a_list_is_run_without_a_shell_its_words_as_they_are() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = plugin_script(
        stage.home.path(),
        "my plugin",
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments\nprintf token\n",
    );
    let words = ["$(touch pwned)", "a b", "; touch pwned", "*", "", "it's"];
    let mut command = vec![plugin.to_str().unwrap()];
    command.extend(words);
    // JSON is YAML, and needs no thought about quotes.
    let auth = serde_json::to_string(&command).unwrap();
    let config = stage.home.write(
        "agent.yaml",
        format!(
            "agent:\n  ca-url: {}\n  match: '127.0.0.*'\n  auth: {auth}\n",
            ca.url()
        ),
    );
    let mut agent = stage.epithet(["agent", "--config"]);
    agent.arg(config);
    let _broker = start(agent);
    output(stage.log_in("127.0.0.1"));
    let arguments = std::fs::read_to_string(stage.home.join("arguments")).unwrap();
    assert_eq!(arguments.lines().collect::<Vec<_>>(), words);
    assert!(!stage.home.join("pwned").exists());
    assert_eq!(ca.tokens(), ["token"]);
}

#[test]
fn five_descriptors_are_open_and_nothing_else() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    // The list of them is made with one more, which is closed when it is looked at.
    let command =
        "for fd in /proc/$$/fd/*; do [ -e \"$fd\" ] && echo \"${fd##*/}\"; done > descriptors; printf token";
    let _broker = stage.broker(&ca.url(), command, ["--token-reuse", "0s"]);
    // By the second run the broker has an agent, a CA and a waiting ssh to leak.
    for host in ["127.0.0.1", "127.0.0.2"] {
        output(stage.log_in(host));
    }
    let descriptors = std::fs::read_to_string(stage.home.join("descriptors")).unwrap();
    // A shell keeps its own stdout, which is redirected here, from 10 on.
    let given: Vec<&str> = descriptors.lines().filter(|fd| fd.len() == 1).collect();
    assert_eq!(given, ["0", "1", "2", "3", "4"], "{descriptors}");
    assert!(descriptors.lines().count() <= 6, "{descriptors}");
}

#[test]
fn a_plugin_may_leave_ten_mebibytes_of_state_unread() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let command = "head -c 10485760 /dev/zero >&3; printf token";
    let broker = stage.broker(&ca.url(), command, ["--token-reuse", "0s"]);
    for host in ["127.0.0.1", "127.0.0.2"] {
        output(stage.log_in(host));
    }
    assert_eq!(stage.inspect(&broker)["login"]["stateBytes"], 10_485_760);
}

#[test]
fn a_plugin_learns_of_the_terminal_and_of_a_remote_session() {
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let plugin = Plugin::counting(&stage.home);
    let _broker = stage.broker(&ca.url(), plugin.command(), ["--token-reuse", "0s"]);
    output(stage.log_in_from_terminal("127.0.0.1"));
    let mut remote = stage.ssh_in_terminal("127.0.0.2");
    remote.env("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22");
    output(Finished::of(remote, DEADLINE));
    output(stage.log_in("127.0.0.3"));
    let told = |run| {
        ["EPITHET_INTERACTIVE", "EPITHET_REMOTE_SESSION"]
            .map(|name| plugin.variable_of(run, name).expect("every run is told"))
    };
    assert_eq!(told(1), ["1", "0"]);
    assert_eq!(told(2), ["1", "1"]);
    assert_eq!(told(3), ["0", "0"]);
}

#[test]
fn the_plugin_that_comes_with_epithet_is_found_though_it_is_not_installed() {
    let server = RealServer::start(&TestUser::current(), "5m");
    let stage = Stage::new(server.public_line());
    let browser = FakeBrowser::with_person(stage.home.path(), Person::named("alice"));
    let plugin = format!(
        "epithet auth oidc --issuer {} --client-id {} --browser {}",
        server.provider.issuer(),
        server.provider.settings().client_id,
        browser.program().display()
    );
    let mut command = stage.agent(server.url(), &plugin, ["--token-reuse", "0s"]);
    // At a desktop, where epithet lies in a folder that no PATH names.
    command.env("PATH", "/usr/bin:/bin").env("DISPLAY", ":0");
    let broker = start(command);

    let first = output(stage.log_in_from_terminal("127.0.0.1"));

    assert_eq!(browser.opened().len(), 1, "{first}");
    let accepted = stage.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");
    // The second login lives on the refresh token in the state, and needs neither browser nor terminal.
    output(stage.log_in("127.0.0.2"));
    assert_eq!(browser.opened().len(), 1);
    let requests = server.provider.requests();
    assert_eq!((requests.logins, requests.refreshes), (1, 1));
    assert_eq!(stage.inspect(&broker)["login"]["logins"], json!(2));
}

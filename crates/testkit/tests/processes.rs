//! The fixtures for the binary's own processes, with scripts that behave as the binary has promised to.

#![cfg(test)]

use epithet_testkit::{Broker, DEADLINE, Finished, Home, Server, plugin_script};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_broker_is_ready_with_its_socket_and_ends_when_told() {
    let home = Home::new();
    let program = plugin_script(
        home.path(),
        "epithet",
        "#!/bin/sh\ntrap 'exit 0' TERM\necho \"started as $*\" >&2\necho \"ready: broker socket $HOME/.epithet/run/default/broker.sock\" >&2\n\
         while :; do read -r line < /dev/null; sleep 0.01; done\n",
    );
    let mut broker = Broker::start(&program, &home, ["--ca-url", "http://127.0.0.1:1"]);
    assert_eq!(broker.socket(), home.join(".epithet/run/default/broker.sock"));
    assert_eq!(broker.run_dir(), home.join(".epithet/run/default"));
    assert_eq!(
        broker.wait_for_log("started"),
        "started as agent --ca-url http://127.0.0.1:1"
    );
    assert!(broker.daemon().try_status().is_none());
    assert_eq!(broker.stop(DEADLINE).unwrap().code(), Some(0));

    let broker = Broker::start(&program, &home, [""; 0]);
    assert_eq!(broker.kill().unwrap().code(), None, "a signal ended it");
}

#[test]
fn a_broker_that_ends_at_once_is_an_error_with_what_it_said() {
    let home = Home::new();
    let program = plugin_script(
        home.path(),
        "epithet",
        "#!/bin/sh\necho 'error: no CA' >&2\nexit 78\n",
    );
    let error = Broker::try_start(home.command(&program)).unwrap_err();
    assert_eq!(error.status.unwrap().code(), Some(78));
    assert!(error.stderr.contains("error: no CA"));
}

#[test]
fn a_server_is_ready_with_its_url() {
    let home = Home::new();
    let program = plugin_script(
        home.path(),
        "epithet",
        "#!/bin/sh\necho \"$1\" >&2\necho 'ready: listening on http://127.0.0.1:4711/' >&2\nexec sleep 600\n",
    );
    let server = Server::start(&program, &home, ["server", "--listen", "127.0.0.1:0"]);
    assert_eq!(server.url(), "http://127.0.0.1:4711");
    server.wait_for_log("server");
    assert!(server.stop(DEADLINE).is_some());
}

#[test]
fn a_plugin_script_runs_while_other_processes_are_started() {
    let home = Home::new();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let home = &home;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("plugin-{number}-{round}");
                    let path = plugin_script(home.path(), &name, "#!/bin/sh\nprintf token\n");
                    let finished = Finished::of(Command::new(path), Duration::from_secs(20)).success();
                    assert_eq!(finished.stdout, "token");
                }
            });
        }
    });
}

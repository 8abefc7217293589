//! A hundred ssh at once, with nobody logged in yet: one run of the plugin has to be enough for all of them.

use crate::house::{EPITHET, House, start_broker, text};
use crate::ms;
use epithet_testkit::{KeyPair, Sshd, SshdSettings, TestUser, plugin_script};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SSHS: usize = 100;

pub(crate) fn run(house: &House) {
    let key = KeyPair::generate(house.home.path(), "crowd_key");
    let sshd = Sshd::start(SshdSettings {
        ca_public_key: Some(house.ca_key.public_line()),
        authorized_keys: Some(key.public_line()),
        more: "MaxStartups 300\n".to_owned(),
        ..SshdSettings::default()
    });
    house.home.trust(&sshd);
    let runs = house.home.join("crowd-runs");
    let script = format!(
        "#!/bin/sh\necho run >> '{}'\nexec '{}'\n",
        runs.display(),
        text(&house.home.join("plugin"))
    );
    let plugin = plugin_script(house.home.path(), "crowd-plugin", &script);
    let broker = start_broker(
        &house.home,
        "crowd",
        house.server.url(),
        &plugin,
        &["--match", "127.0.0.1"],
    );
    let plain = config(
        house,
        "crowd-plain",
        &sshd,
        "",
        &format!("  IdentityFile {}\n  IdentityAgent none\n", key.path().display()),
    );
    let include = format!("Include {}/ssh-config.conf\n", broker.run_dir().display());
    let ours = config(house, "crowd-ours", &sshd, &include, "");

    println!("\n{SSHS} ssh at once to one host, everything on this machine:");
    let (succeeded, elapsed) = all_at_once(house, &plain);
    println!("  key from a file      {succeeded} succeeded in {}", ms(elapsed));
    let (succeeded, elapsed) = all_at_once(house, &ours);
    let count = std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
    println!(
        "  nobody logged in     {succeeded} succeeded in {}, {count} run of the plugin   (goal: all, 1 run)",
        ms(elapsed)
    );
    let (succeeded, elapsed) = all_at_once(house, &ours);
    println!("  agent alive          {succeeded} succeeded in {}", ms(elapsed));
    let certificates = agents(house, broker.socket());
    println!("  agents at the end    {certificates}   (one for each connection that differs)");
}

fn config(house: &House, name: &str, sshd: &Sshd, before: &str, lines: &str) -> String {
    let text_of = format!(
        "{before}Host 127.0.0.1\n  Port {}\n  User {}\n{lines}Match all\n  UserKnownHostsFile {}\n  \
         GlobalKnownHostsFile /dev/null\n  IdentityFile none\n  BatchMode yes\n",
        sshd.port(),
        TestUser::current().name(),
        text(&house.home.join(".ssh/known_hosts"))
    );
    text(&house.home.write(format!(".ssh/{name}"), text_of)).to_owned()
}

fn all_at_once(house: &House, config: &str) -> (usize, Duration) {
    let begun = Instant::now();
    let start = |_| -> Child {
        let mut ssh = house.home.command("ssh");
        ssh.args(["-F", config, "127.0.0.1", "true"]);
        ssh.stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh is installed")
    };
    let children: Vec<_> = (0..SSHS).map(start).collect();
    let ended = children
        .into_iter()
        .map(|mut ssh| ssh.wait().expect("it is our child"));
    let succeeded = ended.filter(std::process::ExitStatus::success).count();
    (succeeded, begun.elapsed())
}

fn agents(house: &House, socket: &Path) -> usize {
    let mut inspect = house.home.command(EPITHET);
    inspect.args(["inspect", "--json", "--broker"]).arg(socket);
    let output = inspect.output().expect("our own program");
    let inspection: serde_json::Value = serde_json::from_slice(&output.stdout).expect("inspect prints JSON");
    inspection["agents"].as_array().map_or(0, Vec::len)
}

//! Other people on the same machine.

use crate::laptop::start;
use crate::support::{Provider, Story};
use epithet_testkit::devidp::{Person, sign_in_blocking};
use epithet_testkit::{DEADLINE, Daemon, Finished, TestUser};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// The status of a request for `address`, made as this user.
fn status_as(uid: u32, address: &str) -> String {
    let mut command = Command::new("setpriv");
    command.args([
        &format!("--reuid={uid}"),
        &format!("--regid={uid}"),
        "--clear-groups",
    ]);
    command.args(["curl", "--silent", "--output", "/dev/null", "--noproxy", "*"]);
    command.args(["--write-out", "%{http_code}", address]);
    Finished::of(command, DEADLINE).success().stdout
}

/// A place that is not the plugin's listener, where a browser may end: it answers one request, and its address stays in
/// the browser.
fn elsewhere() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the browser comes");
        let mut request = [0; 8192];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    port
}

/// Only root can become somebody else.
#[test]
fn another_user_of_this_machine_is_not_heard_even_with_the_right_answer() {
    if !TestUser::is_root() {
        return;
    }
    let story = Story::at(Provider::development());
    let free = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let auth = format!(
        "{} --port {port} --redirect-uri http://127.0.0.1:{}/callback",
        story
            .auth("/no/such/browser")
            .replace("--flow browser", "--flow paste"),
        elsewhere()
    );
    let mut command = story.laptop.agent(story.site.url(), &auth);
    command.args(["--match", "127.0.0.*"]);
    let _broker = start(command);
    let ssh = story.laptop.ssh(["127.0.0.1", "echo logged in"]);
    let mut ssh = Daemon::start("ssh", ssh, None);
    let line = ssh.expect_line(&format!("{}/authorize", story.provider.issuer()), DEADLINE);
    let page = sign_in_blocking(line.trim(), &Person::named("alice")).expect("it leads elsewhere");
    let query = page.url.query().expect("the provider's answer");
    let answer = format!("http://127.0.0.1:{port}/callback?{query}");

    assert_eq!(status_as(65_534, &answer), "403");
    assert_eq!(story.provider.counts().logins, 0, "nothing of it was taken");
    // Nor is it used up by that.
    assert_eq!(status_as(0, &answer), "200");

    let status = ssh.wait(DEADLINE).expect("ssh ends");
    assert!(status.success(), "{}", ssh.stderr());
    assert_eq!(story.provider.counts().logins, 1);
}

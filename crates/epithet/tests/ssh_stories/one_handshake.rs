//! Forty connections at the same moment cost one TLS connection to the CA.

use crate::laptop::{Laptop, start};
use crate::site::EPITHET;
use crate::support::ask;
use epithet_testkit::{DEADLINE, Home, KeyPair, Server, plugin_script, wait_until};
use serde_json::json;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passes connections on to `target` and counts them.
fn counting_proxy(target: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect(&target).unwrap();
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                std::thread::spawn(move || {
                    let _ = copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (port, count)
}

#[test]
fn forty_connections_at_once_make_one_tls_handshake() {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key");
    let (certificate, tls_key) = (home.join("tls.pem"), home.join("tls.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&tls_key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let rules = json!({"policy": {
        "token": "command",
        "command": r#"printf '{"identity": "alice"}'"#,
        "users": {"alice": ["admin"]},
        "defaults": {"allow": {"root": ["admin"]}},
        "hosts": {"*.example.com": {}},
    }});
    let rules = home.write("server.json", rules.to_string());
    let path = |path: &Path| path.display().to_string();
    let server = Server::start(
        Path::new(EPITHET),
        &home,
        [
            "server".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--config={}", path(&rules)),
            format!("--ca-key={}", path(key.path())),
            format!("--audit-file={}", path(&home.join("audit.log"))),
            format!("--tls-cert={}", path(&certificate)),
            format!("--tls-key={}", path(&tls_key)),
        ],
    );
    let target = server.url().rsplit('/').next().unwrap().to_owned();
    let (port, count) = counting_proxy(target);
    let laptop = Laptop::new();
    let plugin = plugin_script(laptop.home.path(), "plugin", "#!/bin/sh\necho token\n");
    let mut command = laptop.agent(&format!("https://127.0.0.1:{port}"), &path(&plugin));
    command.args(["--match", "*.example.com", "--tls-ca-cert", &path(&certificate)]);
    let broker = start(command);

    let asking: Vec<_> = (0..40)
        .map(|number| {
            let socket = broker.socket().to_owned();
            std::thread::spawn(move || {
                ask(
                    &socket,
                    &format!("host{number}.example.com"),
                    "root",
                    &format!("{number:040x}"),
                )
            })
        })
        .collect();
    for answer in asking {
        let answer = answer.join().unwrap();
        assert_eq!(answer["result"]["allow"], true, "{answer}\n{}", broker.log());
    }
    let ready = || {
        let inspection = laptop.inspect(&broker);
        let agents = inspection["agents"].as_array().unwrap();
        (agents.len() == 40 && agents.iter().all(|agent| agent["state"] == "ready")).then_some(())
    };
    wait_until(DEADLINE, ready).expect("forty certificates");
    assert_eq!(count.load(Ordering::SeqCst), 1, "{}", broker.log());
}

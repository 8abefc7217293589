//! When policy does not believe the CA, or is not there: the CA's affair, never a 401 for the user.

use crate::http::{exchange, request};
use crate::setups::{Company, asking};
use epithet_testkit::KeyPair;

#[test]
fn a_policy_server_that_does_not_believe_the_ca_is_a_502_and_not_a_new_login() {
    let company = Company::new();
    let other = KeyPair::generate(company.home.path(), "other.key");
    let body = asking(&company.subject("subject"), "root", "db.example.com").to_string();
    for listen in ["127.0.0.1:0".to_owned(), company.socket("policy.sock")] {
        let policy = company.serve(&["policy", "--listen", &listen, "--ca-pubkey", &other.public_line()]);
        let ca = company.serve(&[
            "ca",
            "--listen=127.0.0.1:0",
            "--key",
            &company.key_path(),
            "--policy",
            policy.url(),
        ]);
        for token in [company.token(), "nonsense".to_owned()] {
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str())];
            let answer = exchange(ca.url(), &request("POST", "/", &headers, body.as_bytes()));
            assert_eq!(answer.status(), 502, "{answer:?}");
            assert!(
                answer.body.contains("the policy server does not accept this CA"),
                "{answer:?}"
            );
            let id = answer.header("epithet-request-id").expect("a name");
            assert!(
                answer.body.contains(id),
                "whoever runs it can find it in the log: {answer:?}"
            );
        }
        let answer = exchange(ca.url(), &request("GET", "/discovery", &[], b""));
        assert_eq!(answer.status(), 502, "{answer:?}");
        assert!(
            answer.body.starts_with("failed to fetch discovery: "),
            "{answer:?}"
        );
        // The operator is told in full, on both sides.
        ca.wait_for_log("does not accept this CA");
        policy.wait_for_log("refused a request that is not from the CA");
    }
}

#[test]
fn a_policy_server_that_is_not_there_is_a_503_that_does_not_say_where_it_should_be() {
    let company = Company::new();
    let socket = company.socket("nobody.sock");
    let body = asking(&company.subject("subject"), "root", "db.example.com").to_string();
    for policy in ["http://127.0.0.1:1", socket.as_str()] {
        let ca = company.serve(&[
            "ca",
            "--listen=127.0.0.1:0",
            "--key",
            &company.key_path(),
            "--policy",
            policy,
        ]);
        let headers = [("authorization", "Bearer any")];
        let answer = exchange(ca.url(), &request("POST", "/", &headers, body.as_bytes()));
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.body.starts_with("error retrieving policy: "), "{answer:?}");
        assert!(
            !answer.body.contains("nobody.sock") && !answer.body.contains(":1"),
            "{answer:?}"
        );
        let answer = exchange(ca.url(), &request("GET", "/discovery", &[], b""));
        assert_eq!(answer.status(), 502, "{answer:?}");
        // Everything that needs no policy goes on.
        let answer = exchange(ca.url(), &request("GET", "/", &[], b""));
        assert_eq!(answer.status(), 200, "{answer:?}");
        let answer = exchange(ca.url(), &request("GET", "/readyz", &[], b""));
        assert_eq!(answer.status(), 503, "{answer:?}");
    }
}

#[test]
fn a_policy_server_that_comes_back_is_asked_again() {
    let company = Company::new();
    let socket = company.socket("policy.sock");
    let ca = company.serve(&[
        "ca",
        "--listen=127.0.0.1:0",
        "--key",
        &company.key_path(),
        "--policy",
        &socket,
    ]);
    let body = asking(&company.subject("subject"), "root", "db.example.com").to_string();
    let authorization = format!("Bearer {}", company.token());
    let headers = [("authorization", authorization.as_str())];
    let post = || exchange(ca.url(), &request("POST", "/", &headers, body.as_bytes())).status();
    assert_eq!(post(), 503);
    for _ in 0..2 {
        let policy = company.serve(&[
            "policy",
            "--listen",
            &socket,
            "--ca-pubkey",
            &company.public_path(),
        ]);
        assert_eq!(post(), 200);
        policy.stop(epithet_testkit::DEADLINE);
        assert_eq!(post(), 503);
    }
}

#[test]
fn the_policy_server_can_fetch_the_cas_key_from_the_ca_itself() {
    let company = Company::new();
    let policy_socket = company.socket("policy.sock");
    let ca = company.serve(&[
        "ca",
        "--listen=127.0.0.1:0",
        "--key",
        &company.key_path(),
        "--policy",
        &policy_socket,
    ]);
    // It is asked on this machine, whatever proxy there is for others.
    let proxies =
        ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"].map(|name| (name, "http://127.0.0.1:9"));
    let _policy = company.serve_in(
        &proxies,
        &["policy", "--listen", &policy_socket, "--ca-pubkey", ca.url()],
    );
    let body = asking(&company.subject("subject"), "root", "db.example.com").to_string();
    let authorization = format!("Bearer {}", company.token());
    let headers = [("authorization", authorization.as_str())];
    let answer = exchange(ca.url(), &request("POST", "/", &headers, body.as_bytes()));
    assert_eq!(answer.status(), 200, "{answer:?}");
}

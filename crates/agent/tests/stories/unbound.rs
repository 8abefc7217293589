//! Clients that never send `session-bind@openssh.com`, as OpenSSH 8.0 to 8.8 and most libraries: they log in, and the
//! hosts that they forward their agent to do not.

use crate::stage::{Stage, credential, settings};
use crate::the_persons_own_agent::OwnAgent;
use epithet_agent::{AgentSettings, Askers, Chain, ChainWhen};
use epithet_ssh::CaKey;
use epithet_ssh::encoding::{Put, Reader};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const FAILURE: u8 = 5;
const SIGNATURE: u8 = 14;

/// What an old ssh does on a connection: lists, and has its login signed. Returns the answer's type.
async fn log_in(stage: &Stage, session_id: &str) -> u8 {
    let mut agent = UnixStream::connect(&stage.socket)
        .await
        .expect("the agent listens");
    log_in_on(&mut agent, stage, session_id).await
}

/// The same on a connection that is there already.
async fn log_in_on(agent: &mut UnixStream, stage: &Stage, session_id: &str) -> u8 {
    let listed = exchange(agent, &[11]).await;
    if listed == [12, 0, 0, 0, 0] {
        return FAILURE;
    }
    let mut reader = Reader::new(&listed[5..]);
    let key = reader.string().expect("one certificate").to_vec();
    let mut login = Vec::new();
    login.put_string(session_id);
    login.put_u8(50);
    login.put_string(&stage.user);
    login.put_string("ssh-connection");
    login.put_string("publickey");
    login.put_u8(1);
    login.put_string("ssh-ed25519-cert-v01@openssh.com");
    login.put_string(&key);
    let mut request = vec![13];
    request.put_string(&key);
    request.put_string(&login);
    request.put_u32(0);
    exchange(agent, &request).await[0]
}

async fn exchange(agent: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_string(message);
    agent.write_all(&frame).await.expect("the agent reads");
    let length = agent.read_u32().await.expect("a reply");
    let mut reply = vec![0; usize::try_from(length).expect("a length")];
    agent.read_exact(&mut reply).await.expect("a whole reply");
    reply
}

fn stage(allow_forwarding: bool, askers: &Askers) -> Stage {
    let (stage, fulfil) = Stage::pending(AgentSettings {
        allow_forwarding,
        askers: Some(askers.clone()),
        ..settings()
    });
    assert!(fulfil.ready(Arc::clone(&credential(&stage.ca, &stage.user))));
    stage
}

#[tokio::test]
async fn a_process_that_asked_logs_in_once_and_the_host_it_forwards_its_agent_to_does_not() {
    let askers = Askers::default();
    let stage = stage(false, &askers);
    let this = std::process::id();
    assert_eq!(log_in(&stage, "nobody asked").await, FAILURE);

    askers.asked(this);
    assert_eq!(log_in(&stage, "its own login").await, SIGNATURE);
    // A forwarded connection is made by the same ssh, after its login, and an old one cannot say so.
    assert_eq!(log_in(&stage, "the host's login elsewhere").await, FAILURE);

    askers.asked(this + 1);
    assert_eq!(log_in(&stage, "another process asked").await, FAILURE);
    askers.asked(this);
    assert_eq!(log_in(&stage, "its next login").await, SIGNATURE);
}

/// Binds a connection to a session, as ssh 8.9 and later do before anything else.
async fn bind(agent: &mut UnixStream, session_id: &str) {
    let host = CaKey::generate_ed25519().expect("random bytes");
    let mut bind = vec![27];
    bind.put_string("session-bind@openssh.com");
    bind.put_string(host.public().blob());
    bind.put_string(session_id);
    bind.put_string(host.sign(session_id.as_bytes()).expect("a signature"));
    bind.put_u8(0);
    assert_eq!(exchange(agent, &bind).await, [6]);
}

#[tokio::test]
async fn a_host_behind_an_old_ssh_gets_nothing_by_binding_the_connection_itself() {
    let askers = Askers::default();
    let stage = stage(false, &askers);
    // An ssh that binds needs no question on record: its forwarded connections say that they are.
    let mut newer = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut newer, "of a newer ssh").await;
    assert_eq!(log_in_on(&mut newer, &stage, "of a newer ssh").await, SIGNATURE);

    askers.asked(std::process::id());
    let mut old = UnixStream::connect(&stage.socket).await.unwrap();
    exchange(&mut old, &[11]).await;
    let mut forwarded = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut forwarded, "onward").await;
    assert_eq!(log_in_on(&mut forwarded, &stage, "onward").await, FAILURE);
    assert_eq!(log_in_on(&mut old, &stage, "its own login").await, SIGNATURE);

    askers.asked(std::process::id());
    let mut newer = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut newer, "of a newer ssh").await;
    assert_eq!(
        log_in_on(&mut newer, &stage, "of a newer ssh").await,
        SIGNATURE,
        "it asked"
    );
}

#[tokio::test]
async fn where_forwarding_is_allowed_it_is_for_old_clients_as_well() {
    let stage = stage(true, &Askers::default());
    for session in ["its own login", "the host's login elsewhere"] {
        assert_eq!(log_in(&stage, session).await, SIGNATURE);
    }
}

/// The keys that a connection is offered.
async fn listed(agent: &mut UnixStream) -> Vec<Vec<u8>> {
    let answer = exchange(agent, &[11]).await;
    let mut reader = Reader::new(&answer[1..]);
    let count = reader.u32().expect("a count");
    let mut key = || {
        let key = reader.string().expect("a key").to_vec();
        reader.string().expect("a comment");
        key
    };
    (0..count).map(|_| key()).collect()
}

/// Asks for a login with one of the person's own keys; the answer's type.
async fn log_in_with(agent: &mut UnixStream, key: &[u8], user: &str, session_id: &str) -> u8 {
    let mut login = Vec::new();
    login.put_string(session_id);
    login.put_u8(50);
    login.put_string(user);
    login.put_string("ssh-connection");
    login.put_string("publickey");
    login.put_u8(1);
    login.put_string("ssh-ed25519");
    login.put_string(key);
    let mut request = vec![13];
    request.put_string(key);
    request.put_string(&login);
    request.put_u32(0);
    exchange(agent, &request).await[0]
}

#[tokio::test]
async fn once_a_client_that_does_not_bind_has_used_an_agent_the_persons_own_is_only_for_who_asked() {
    let askers = Askers::default();
    let user = String::from_utf8(
        std::process::Command::new("id")
            .arg("-un")
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let chain = Chain::new(ChainWhen::Always, user.trim().parse().expect("a user"), None);
    let (stage, fulfil) = Stage::pending(AgentSettings {
        askers: Some(askers.clone()),
        chain: Some(chain.clone()),
        ..settings()
    });
    assert!(fulfil.ready(Arc::clone(&credential(&stage.ca, &stage.user))));
    let own = OwnAgent::start(stage.folder.path(), &[]);
    chain.lead_to(own.socket.clone());

    // A newer ssh binds, and has both; so the refusals below are not for want of a key.
    let mut newer = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut newer, "of a newer ssh").await;
    let keys = listed(&mut newer).await;
    assert_eq!(keys.len(), 2, "the certificate and the person's own key");
    let mine = &keys[1];
    assert_eq!(
        log_in_with(&mut newer, mine, user.trim(), "of a newer ssh").await,
        SIGNATURE
    );

    // An old one that asked has the certificate, and nothing of the person's own.
    askers.asked(std::process::id());
    let mut old = UnixStream::connect(&stage.socket).await.unwrap();
    assert_eq!(listed(&mut old).await, keys[..1]);
    assert_eq!(
        log_in_with(&mut old, mine, user.trim(), "its login").await,
        FAILURE
    );

    // From now on a connection that nobody asked for may be a remote host's, even where it binds itself to a login.
    let mut onward = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut onward, "onward").await;
    assert!(listed(&mut onward).await.is_empty());
    assert_eq!(
        log_in_with(&mut onward, mine, user.trim(), "onward").await,
        FAILURE
    );
    assert!(
        listed(&mut newer).await.is_empty(),
        "nor is one that was there before believed any more"
    );

    askers.asked(std::process::id());
    let mut newer = UnixStream::connect(&stage.socket).await.unwrap();
    bind(&mut newer, "its own login").await;
    assert_eq!(listed(&mut newer).await, keys, "whoever asked has both");
}

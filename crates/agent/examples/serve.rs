//! An agent in the foreground, with a certificate of five minutes by a CA made up for it: for trying ssh clients.
//!
//! `cargo run -p epithet-agent --example serve -- FOLDER USER` makes `FOLDER` (which must not exist), writes the CA's
//! public key to `FOLDER/ca.pub` and serves `FOLDER/agent` until it is ended.

use std::error::Error;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use epithet_agent::{AgentSettings, AgentSocket, Credential, Now, Promise};
use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey};
use epithet_wire::Principal;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .init();
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(user)) = (arguments.next(), arguments.next()) else {
        return Err("give a folder and a user".into());
    };
    let folder = PathBuf::from(folder);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let user = Principal::parse(&user)?;
    let (ca, key, now) = (CaKey::generate_ed25519()?, SubjectKey::generate()?, Now::read());
    std::fs::write(folder.join("ca.pub"), ca.public_line() + "\n")?;
    let certificate = CertificateSpec {
        subject: SubjectPublicKey::parse(&key.public_line())?,
        serial: 1,
        key_id: "example".parse()?,
        principals: vec![user.clone()],
        valid_after: now.unix - 60,
        valid_before: now.unix + 300,
        critical_options: [].into(),
        extensions: [("permit-pty".into(), String::new())].into(),
    }
    .sign(&ca)?;
    let credential = Arc::new(Credential::new(key, certificate, user, now)?);
    let socket = AgentSocket::bind(folder.join("agent"))?;
    let settings = AgentSettings::default();
    socket
        .serve(Promise::ready(credential), settings, CancellationToken::new())
        .await;
    Ok(())
}

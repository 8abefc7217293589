//! A plugin in Rust: the token is in a file that something else keeps fresh; the state counts the logins.
//!
//! `--auth 'TOKEN_FILE=/run/user/1000/token target/debug/examples/token_file'`

use std::io;

fn main() -> io::Result<()> {
    // First, so that descriptors 3 and 4 are the broker's and nobody else's.
    let state = epithet_plugin::read_state()?;
    let logins: u64 = std::str::from_utf8(&state)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);

    let path = std::env::var_os("TOKEN_FILE").ok_or_else(|| io::Error::other("TOKEN_FILE is not set"))?;
    epithet_plugin::progress(&format!("login number {}", logins + 1));
    let token = std::fs::read_to_string(path)?;

    epithet_plugin::finish(token.trim_end().as_bytes(), (logins + 1).to_string().as_bytes())
}

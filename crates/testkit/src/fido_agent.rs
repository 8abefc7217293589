//! An agent with a FIDO key whose private half is software, for logins that else need a token and a finger on it.
//!
//! It signs as OpenSSH's `PROTOCOL.u2f` says a token does, and what the token would say of its holder (somebody touched
//! it, somebody gave the PIN) is the test's to choose. Nothing of Epithet's own SSH code is in it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// `SSH_SK_USER_PRESENCE_REQD`: the token was touched.
pub const FIDO_TOUCHED: u8 = 0x01;
/// `SSH_SK_USER_VERIFICATION_REQD`: its PIN was given.
pub const FIDO_VERIFIED: u8 = 0x04;
/// Where FIDO keys of ssh belong to, as `ssh-keygen` has it by default.
const APPLICATION: &str = "ssh:";
/// More than any message of these tests.
const FRAME_MAX: usize = 256 * 1024;

/// The two kinds of FIDO keys that OpenSSH has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FidoKind {
    /// `ssh-keygen -t ed25519-sk`
    Ed25519,
    /// `ssh-keygen -t ecdsa-sk`
    EcdsaP256,
}

impl FidoKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ed25519, Self::EcdsaP256];

    fn algorithm(self) -> &'static str {
        match self {
            Self::Ed25519 => "sk-ssh-ed25519@openssh.com",
            Self::EcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }
}

/// An agent that holds one FIDO key with its certificate, at a socket of its own. Its threads end with the test.
#[derive(Debug)]
pub struct FidoAgent {
    socket: PathBuf,
    token: Arc<Token>,
}

/// What the agent's threads share.
#[derive(Debug)]
struct Token {
    kind: FidoKind,
    pair: Pair,
    public: Vec<u8>,
    certificate: Mutex<Vec<u8>>,
    flags: AtomicU8,
    counter: AtomicU32,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FidoAgent {
    /// A new key of this kind, served at `socket`, without a certificate yet.
    ///
    /// # Panics
    /// When there are no random bytes, or the socket cannot be made.
    pub fn start(socket: &Path, kind: FidoKind) -> Self {
        let (pair, parts) = match kind {
            FidoKind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().expect("random bytes");
                let point = string(pair.public_key().as_ref());
                (Pair::Ed25519(pair), point)
            }
            FidoKind::EcdsaP256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("random bytes");
                let point = [string(b"nistp256"), string(pair.public_key().as_ref())].concat();
                (Pair::EcdsaP256(pair), point)
            }
        };
        let public = [
            string(kind.algorithm().as_bytes()),
            parts,
            string(APPLICATION.as_bytes()),
        ]
        .concat();
        let token = Arc::new(Token {
            kind,
            pair,
            public,
            certificate: Mutex::default(),
            flags: AtomicU8::new(FIDO_TOUCHED),
            counter: AtomicU32::new(0),
        });
        let listener = UnixListener::bind(socket).expect("a socket");
        let shared = Arc::clone(&token);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let token = Arc::clone(&shared);
                std::thread::spawn(move || token.serve(stream));
            }
        });
        Self {
            socket: socket.to_owned(),
            token,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The public key as one line, as a `.pub` file has it.
    pub fn public_line(&self) -> String {
        let blob = STANDARD.encode(&self.token.public);
        format!("{} {blob}", self.token.kind.algorithm())
    }

    /// Offers this certificate from now on: a line as a `-cert.pub` file has it.
    ///
    /// # Panics
    /// When it is not one.
    pub fn certify(&self, line: &str) {
        let blob = line.split_whitespace().nth(1).expect("a certificate's line");
        let blob = STANDARD.decode(blob).expect("base64");
        *self.token.certificate.lock().expect("no thread panics") = blob;
    }

    /// What the token says of its holder from now on: [`FIDO_TOUCHED`], [`FIDO_VERIFIED`], both or nothing.
    pub fn set_flags(&self, flags: u8) {
        self.token.flags.store(flags, Ordering::Relaxed);
    }
}

impl Token {
    fn serve(&self, mut stream: UnixStream) {
        while let Ok(question) = message(&mut stream) {
            let answer = self.answer(&question).unwrap_or_else(|| vec![5]);
            if stream.write_all(&string(&answer)).is_err() {
                return;
            }
        }
    }

    /// The answer to a request for the list (11) or for a signature (13); none is `SSH_AGENT_FAILURE`.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let certificate = self.certificate.lock().expect("no thread panics").clone();
        match question.split_first()? {
            (11, []) => Some([&[12, 0, 0, 0, 1][..], &string(&certificate), &string(b"FIDO")].concat()),
            (13, rest) => {
                let (key, rest) = field(rest)?;
                let (data, _flags) = field(rest)?;
                (key == certificate).then(|| [&[14][..], &string(&self.sign(data))].concat())
            }
            _ => None,
        }
    }

    /// A signature as `PROTOCOL.u2f` has it: over the hashes of the application and of the message, with the flags and a
    /// counter between the two, both of which stand behind it.
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let flags = self.flags.load(Ordering::Relaxed);
        let counter = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        let signed = [
            hash(APPLICATION.as_bytes()).as_ref(),
            &[flags],
            &counter,
            hash(data).as_ref(),
        ]
        .concat();
        let raw = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(&signed).as_ref().to_vec(),
            Pair::EcdsaP256(pair) => {
                let both = pair.sign(&SystemRandom::new(), &signed).expect("random bytes");
                let (r, s) = both.as_ref().split_at(32);
                [mpint(r), mpint(s)].concat()
            }
        };
        let algorithm = string(self.kind.algorithm().as_bytes());
        [&algorithm[..], &string(&raw), &[flags], &counter].concat()
    }
}

/// `string` of RFC 4251.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short string").to_be_bytes();
    [&length[..], bytes].concat()
}

/// `mpint` of RFC 4251, of a positive number.
fn mpint(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let shortest = &number[first..];
    // A first bit that is set would make it negative.
    let sign = shortest.first().is_some_and(|byte| *byte >= 0x80);
    string(&[&[0][..usize::from(sign)], shortest].concat())
}

/// The first `string`, and what follows it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        assert_eq!(mpint(&[0, 0, 1]), [0, 0, 0, 1, 1]);
        assert_eq!(mpint(&[0, 0x80]), [0, 0, 0, 2, 0, 0x80]);
    }
}

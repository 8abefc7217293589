//! The CA's token towards a policy server, made as `docs/policy-server.md` says and by nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::CaKey;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The claims of one request; a test changes what it is about.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: String,
    /// Made so many seconds ago.
    pub(crate) age: i64,
    pub(crate) life: i64,
}

impl Claims {
    /// The right ones.
    pub(crate) fn of(key: &CaKey, method: &str, target: &str, body: &str) -> Self {
        Self {
            issuer: key.fingerprint(),
            audience: "epithet-policy".into(),
            method: method.into(),
            target: target.into(),
            body: body.into(),
            age: 0,
            life: 60,
        }
    }

    /// The value of `Authorization`.
    pub(crate) fn signed_by(&self, key: &CaKey) -> String {
        let iat = jiff::Timestamp::now().as_second() - self.age;
        let jti = COUNT.fetch_add(1, Ordering::Relaxed);
        let claims = format!(
            r#"{{"iss":"{}","aud":"{}","iat":{iat},"exp":{},"jti":"{jti:032x}","bh":"{}","htm":"{}","htu":"{}"}}"#,
            self.issuer,
            self.audience,
            iat + self.life,
            sha256(&self.body),
            self.method,
            self.target,
        );
        let header = format!(r#"{{"alg":"{}"}}"#, key.jws_algorithm());
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = key.sign_jws(signed.as_bytes()).expect("a key signs");
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// By openssl, so that nothing of ours vouches for ours.
fn sha256(text: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    openssl
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("openssl reads");
    let output = openssl.wait_with_output().expect("openssl ends");
    URL_SAFE_NO_PAD.encode(output.stdout)
}

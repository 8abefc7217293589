//! What one ID token costs: the signature alone, and everything together.
//!
//! `cargo bench -p epithet-oidc`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on fails, and prints"
)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_oidc::id_token::{Expectation, verify};
use epithet_oidc::jwks::KeySet;
use epithet_oidc::jws::Algorithm;
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;
const PER_ROUND: u32 = 5_000;

fn main() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let jwk = json!({"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig",
        "n": URL_SAFE_NO_PAD.encode(&public.n), "e": URL_SAFE_NO_PAD.encode(&public.e)});
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let header = json!({"alg": "RS256", "kid": "k1", "typ": "JWT"});
    let claims = json!({
        "iss": "https://login.example.com/tenants/4711", "sub": "00u1a2b3c4d5e6f7g8h9", "aud": "ssh-login",
        "iat": 1_800_000_000, "exp": 1_800_003_600, "auth_time": 1_799_990_000, "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng",
        "email": "alice@example.com", "email_verified": true, "name": "Alice Example", "preferred_username": "alice",
        "given_name": "Alice", "family_name": "Example", "amr": ["pwd", "otp"], "groups": ["ops", "dev", "everyone"],
    });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
    let expected = Expectation::new(
        "https://login.example.com/tenants/4711",
        "ssh-login",
        &[Algorithm::RS256],
    );

    let parsed = public.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap();
    let parsed_once = measure(|| {
        parsed.verify_sig(signed.as_bytes(), &signature).unwrap();
    });
    let parsed_each = measure(|| {
        public
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
            .unwrap();
    });
    let whole = measure(|| {
        black_box(verify(token.as_bytes(), &keys, &expected, 1_800_000_100).unwrap());
    });
    println!("RS256 signature, key parsed once        {parsed_once:>10.2?}");
    println!("RS256 signature, key parsed each time   {parsed_each:>10.2?}");
    println!("ID token, everything                    {whole:>10.2?}");
    println!(
        "ID token beyond the signature           {:>10.2?}",
        whole.saturating_sub(parsed_once)
    );
}

/// The median round's time per call.
fn measure(mut call: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                call();
            }
            start.elapsed() / PER_ROUND
        })
        .collect();
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

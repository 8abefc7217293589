//! What a certificate costs beside its signature: `cargo run --release -p epithet-ssh --example certificates_per_second`.
#![expect(clippy::print_stdout, reason = "a program that prints its measurement")]

use std::error::Error;
use std::time::{Duration, Instant};

use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey};

fn main() -> Result<(), Box<dyn Error>> {
    let ca = CaKey::generate_ed25519()?;
    let subject = SubjectKey::generate()?.public_line();
    let spec = CertificateSpec {
        subject: SubjectPublicKey::parse(&subject)?,
        serial: 1,
        key_id: "alice@example.com".parse()?,
        principals: vec!["alice".parse()?],
        valid_after: 1_767_225_540,
        valid_before: 1_767_225_900,
        critical_options: [].into(),
        extensions: [("permit-pty".into(), String::new())].into(),
    };
    let message = vec![7; 400];
    let signature = rate(|| ca.sign(&message).map(|_| ()))?;
    let certificate = rate(|| spec.sign(&ca).map(|_| ()))?;
    let request = rate(|| -> Result<(), Box<dyn Error>> {
        let spec = CertificateSpec {
            subject: SubjectPublicKey::parse(&subject)?,
            ..spec.clone()
        };
        std::hint::black_box(spec.sign(&ca)?.line());
        Ok(())
    })?;
    println!("signature of 400 bytes            {signature:8.2} us");
    println!(
        "certificate                       {certificate:8.2} us = {:.2} signatures",
        certificate / signature
    );
    println!(
        "parsed, certified, written out    {request:8.2} us = {:.2} signatures",
        request / signature
    );
    Ok(())
}

/// Microseconds for one call, the best of five rounds.
fn rate<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let mut calls = 0u32;
        while start.elapsed() < Duration::from_millis(300) {
            for _ in 0..50 {
                call()?;
            }
            calls += 50;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    }
    Ok(best)
}

//! What a certificate costs beside its signature, in one run on one core.

use crate::house::KEY;
use aws_lc_rs::signature::Ed25519KeyPair;
use epithet_ssh::{CaKey, CertificateSpec, SubjectPublicKey};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(200);

pub(crate) fn run() {
    let pair = Ed25519KeyPair::generate().expect("random bytes");
    let ca = CaKey::generate_ed25519().expect("random bytes");
    let extension = |name: &str| (name.to_owned(), String::new());
    let spec = CertificateSpec {
        subject: SubjectPublicKey::parse(KEY).expect("a key"),
        serial: 0xfedc_ba98_7654_3210,
        key_id: "alice@example.com req=64bb52ce6fcc641b"
            .parse()
            .expect("a key id"),
        principals: vec!["root".parse().expect("a principal")],
        valid_after: 1_767_225_540,
        valid_before: 1_767_225_900,
        critical_options: [].into(),
        extensions: ["permit-agent-forwarding", "permit-pty", "permit-user-rc"]
            .map(extension)
            .into(),
    };
    let message = spec
        .prepare(ca.public())
        .expect("it is in order")
        .to_be_signed()
        .to_vec();
    // In turn, so that whatever else the machine does falls on both.
    let (mut bare, mut whole) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        bare = bare.min(microseconds(|| {
            black_box(pair.sign(black_box(&message)));
        }));
        whole = whole.min(microseconds(|| {
            black_box(spec.sign(&ca).expect("it is signed"));
        }));
    }
    println!("\none core, best of {ROUNDS} rounds:");
    println!(
        "  Ed25519 signature of aws-lc-rs    {bare:.2} us, {:.0} a second",
        1e6 / bare
    );
    println!(
        "  certificate, built and signed     {whole:.2} us, {:.0} a second = {:.2} signatures   (goal: 1.5)",
        1e6 / whole,
        whole / bare
    );
}

/// Microseconds for one call, over a round.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut calls = 0_u32;
    while begun.elapsed() < ROUND {
        for _ in 0..50 {
            call();
        }
        calls += 50;
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

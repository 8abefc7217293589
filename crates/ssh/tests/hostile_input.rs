//! What a stranger may send to a CA, and what a broken policy may ask of it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use epithet_ssh::encoding::Put;
use epithet_ssh::{
    CaKey, CaPublicKey, CertificateSpec, CertificateSpecError, KeyFormatError, SubjectKey, SubjectKeyError,
    SubjectPublicKey, UserCertificate, verify_host_signature,
};
use epithet_wire::Principal;
use proptest::prelude::*;

fn line(algorithm: &str, write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut blob = Vec::new();
    blob.put_string(algorithm);
    write(&mut blob);
    format!("{algorithm} {}", STANDARD.encode(blob))
}

fn rsa(exponent: &[u8], modulus: &[u8]) -> String {
    line("ssh-rsa", |blob| {
        blob.put_positive(exponent);
        blob.put_positive(modulus);
    })
}

fn modulus(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    if !bits.is_multiple_of(8) {
        modulus[0] = 0xff >> (8 - bits % 8);
    }
    modulus
}

const F4: &[u8] = &[1, 0, 1];

#[test]
fn rsa_keys_are_of_2048_to_8192_bits_with_the_usual_exponent() {
    for bits in [2048, 3072, 8192] {
        assert!(
            SubjectPublicKey::parse(&rsa(F4, &modulus(bits))).is_ok(),
            "{bits}"
        );
    }
    for bits in [1024, 2047, 8193] {
        let error = SubjectPublicKey::parse(&rsa(F4, &modulus(bits))).unwrap_err();
        assert_eq!(error, SubjectKeyError::RsaSize(bits));
    }
    for exponent in [&[1][..], &[3], &[17], &[1, 0, 2], &[1, 0, 0, 0, 1]] {
        let error = SubjectPublicKey::parse(&rsa(exponent, &modulus(2048))).unwrap_err();
        assert_eq!(error, SubjectKeyError::RsaExponent, "{exponent:?}");
    }
    let mut even = modulus(2048);
    even[255] = 0xfe;
    assert!(SubjectPublicKey::parse(&rsa(F4, &even)).is_err());
}

#[test]
fn a_point_must_be_on_its_curve_and_uncompressed() {
    let ecdsa = |curve: &str, point: &[u8]| {
        line("ecdsa-sha2-nistp256", |blob| {
            blob.put_string(curve);
            blob.put_string(point);
        })
    };
    let off_curve = [&[4][..], &[1; 64]].concat();
    assert_eq!(
        SubjectPublicKey::parse(&ecdsa("nistp256", &off_curve)),
        Err(SubjectKeyError::NotOnCurve)
    );
    let infinity = [0];
    let compressed = [&[2][..], &[1; 32]].concat();
    let hybrid = [&[6][..], &[1; 64]].concat();
    for point in [&infinity[..], &compressed, &hybrid, &off_curve[..64]] {
        assert!(matches!(
            SubjectPublicKey::parse(&ecdsa("nistp256", point)),
            Err(SubjectKeyError::Key(KeyFormatError::Malformed(_)))
        ));
    }
    assert!(SubjectPublicKey::parse(&ecdsa("nistp384", &off_curve)).is_err());
}

#[test]
fn an_ed25519_key_is_a_point_that_not_everybody_can_sign_for() {
    let ed25519 = |point: [u8; 32]| line("ssh-ed25519", |blob| blob.put_string(point));
    let fido = |point: [u8; 32]| {
        line("sk-ssh-ed25519@openssh.com", |blob| {
            blob.put_string(point);
            blob.put_string("ssh:");
        })
    };
    let bytes = |first: u8, last: u8| {
        let mut point = [0; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf1, 0x7f);
    for (what, point) in [
        ("y = 2 has no x", bytes(2, 0)),
        ("the neutral element", bytes(1, 0)),
        ("y = 0, of order 4", bytes(0, 0)),
        ("y = p + 4, which is 4 written longer", unreduced),
        ("the neutral element with a sign", bytes(1, 0x80)),
    ] {
        for line in [ed25519(point), fido(point)] {
            assert_eq!(
                SubjectPublicKey::parse(&line),
                Err(SubjectKeyError::NotOnCurve),
                "{what}"
            );
        }
    }
    // y = 4 / 5, the base point.
    let mut base = [0x66; 32];
    base[0] = 0x58;
    assert!(SubjectPublicKey::parse(&ed25519(base)).is_ok());
}

#[test]
fn a_key_has_one_form_only() {
    let padded_number = line("ssh-rsa", |blob| {
        blob.put_string([0, 1, 0, 1]);
        blob.put_positive(&modulus(2048));
    });
    let trailing = line("ssh-ed25519", |blob| {
        blob.put_string([9; 32]);
        blob.put_u8(0);
    });
    let short = line("ssh-ed25519", |blob| blob.put_string([9; 31]));
    let web = line("sk-ssh-ed25519@openssh.com", |blob| {
        blob.put_string([9; 32]);
        blob.put_string("https://example.com");
    });
    let unknown = line("ssh-ed448", |blob| blob.put_string([9; 57]));
    for bad in [padded_number, trailing, short, web, unknown] {
        assert!(SubjectPublicKey::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn fido_keys_and_short_rsa_keys_are_never_a_ca() {
    let fido = line("sk-ssh-ed25519@openssh.com", |blob| {
        blob.put_string([9; 32]);
        blob.put_string("ssh:");
    });
    let message = CaPublicKey::parse(&fido).unwrap_err().to_string();
    assert!(message.contains("sk-ssh-ed25519@openssh.com"), "{message}");
    assert!(CaPublicKey::parse(&rsa(F4, &modulus(1024))).is_err());
}

fn principals(count: usize) -> Vec<Principal> {
    (0..count)
        .map(|number| format!("user{number}").parse().expect("a principal"))
        .collect()
}

fn spec() -> CertificateSpec {
    let key = SubjectKey::generate().expect("random bytes");
    CertificateSpec {
        subject: SubjectPublicKey::parse(&key.public_line()).expect("our own key"),
        serial: 1,
        key_id: "alice@example.com".parse().expect("a key id"),
        principals: principals(1),
        valid_after: 100,
        valid_before: 400,
        critical_options: BTreeMap::new(),
        extensions: BTreeMap::new(),
    }
}

#[test]
fn nothing_is_signed_that_is_valid_for_everybody_or_for_ever() {
    let ca = CaKey::generate_ed25519().unwrap();
    let refused = |change: fn(&mut CertificateSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.sign(&ca).unwrap_err()
    };
    assert_eq!(
        refused(|spec| spec.principals.clear()),
        CertificateSpecError::NoPrincipal
    );
    assert_eq!(
        refused(|spec| spec.principals = principals(17)),
        CertificateSpecError::TooManyPrincipals(17)
    );
    assert!(matches!(
        refused(|spec| spec.principals.push("user0".parse().unwrap())),
        CertificateSpecError::DuplicatePrincipal(_)
    ));
    assert_eq!(refused(|spec| spec.serial = 0), CertificateSpecError::Serial);
    for change in [
        (|spec| spec.valid_after = 0) as fn(&mut CertificateSpec),
        |spec| spec.valid_before = u64::MAX,
        |spec| spec.valid_before = spec.valid_after,
        |spec| spec.valid_before = 99,
    ] {
        assert!(matches!(refused(change), CertificateSpecError::Times(_)));
    }
    for change in [
        (|spec| drop(spec.extensions.insert(String::new(), String::new()))) as fn(&mut CertificateSpec),
        |spec| drop(spec.extensions.insert("a b".into(), String::new())),
        |spec| drop(spec.critical_options.insert("a\n".into(), String::new())),
        |spec| drop(spec.critical_options.insert("x".repeat(257), String::new())),
    ] {
        assert!(matches!(refused(change), CertificateSpecError::OptionName(_)));
    }
    assert_eq!(
        refused(|spec| drop(spec.extensions.insert("x".into(), "y".repeat(32 * 1024)))),
        CertificateSpecError::TooLarge
    );
    let mut most = spec();
    most.principals = principals(16);
    assert_eq!(most.sign(&ca).unwrap().principals().len(), 16);
}

#[test]
fn two_certificates_of_the_same_content_differ() {
    let ca = CaKey::generate_ed25519().unwrap();
    let spec = spec();
    assert_ne!(spec.sign(&ca).unwrap().blob(), spec.sign(&ca).unwrap().blob());
}

#[test]
fn a_signature_from_elsewhere_must_be_by_the_ca_that_the_certificate_names() {
    let (ca, other) = (
        CaKey::generate_ed25519().unwrap(),
        CaKey::generate_ed25519().unwrap(),
    );
    let unsigned = spec().prepare(ca.public()).unwrap();
    let good = ca.sign(unsigned.to_be_signed()).unwrap();
    let bad = other.sign(unsigned.to_be_signed()).unwrap();
    assert!(unsigned.clone().with_signature(&bad).is_err());
    assert!(unsigned.clone().with_signature(b"").is_err());
    assert_eq!(
        unsigned.with_signature(&good).unwrap().ca_fingerprint(),
        ca.fingerprint()
    );
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,120}") {
        let _ = UserCertificate::from_blob(&bytes[..]);
        let _ = verify_host_signature(&bytes, b"message", &bytes);
        let _ = SubjectPublicKey::parse(&text);
        let _ = CaKey::from_openssh(&text, || None);
        for algorithm in ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp384", "sk-ecdsa-sha2-nistp256@openssh.com",
            "ssh-ed25519-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com"] {
            let line = line(algorithm, |blob| blob.extend_from_slice(&bytes));
            let _ = SubjectPublicKey::parse(&line);
            let _ = CaPublicKey::parse(&line);
            prop_assert!(UserCertificate::parse(&line).is_err());
        }
    }

    #[test]
    fn no_key_file_makes_the_reader_panic(kind in "none|aes256-ctr|aes256-gcm@openssh.com|3des-cbc|x", public in ".{0,9}", section in proptest::collection::vec(any::<u8>(), 0..200), end in ".{0,9}") {
        let mut content = b"openssh-key-v1\0".to_vec();
        content.put_string(&kind);
        content.put_string(if kind == "none" { "none" } else { "bcrypt" });
        content.put_nested(|options| if kind != "none" { options.put_string("salt"); options.put_u32(1); });
        content.put_u32(1);
        content.put_string(public);
        content.put_nested(|inner| {
            inner.put_u64(0);
            for name in ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"].iter().take(usize::from(section.len() % 2 == 0)) {
                inner.put_string(name);
            }
            inner.extend_from_slice(&section);
        });
        content.extend_from_slice(end.as_bytes());
        let pem = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", STANDARD.encode(content));
        let passphrase = || Some(epithet_wire::SecretBytes::new(b"secret".to_vec()));
        prop_assert!(CaKey::from_openssh(&pem, passphrase).is_err());
    }

    #[test]
    fn a_damaged_certificate_never_parses_and_never_panics(place in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let ca = CaKey::generate_ed25519().unwrap();
        let mut spec = spec();
        spec.extensions.insert("permit-pty".into(), String::new());
        let mut blob = spec.sign(&ca).unwrap().blob().to_vec();
        let place = place.index(blob.len());
        prop_assume!(blob[place] != with);
        blob[place] = with;
        prop_assert!(UserCertificate::from_blob(&blob[..]).is_err());
        blob.truncate(cut.index(blob.len()));
        prop_assert!(UserCertificate::from_blob(blob).is_err());
    }

    #[test]
    fn whatever_is_signed_reads_back_as_it_was_asked_for(
        serial in 1u64.., key_id in "[ -~]{1,512}", count in 1usize..=16,
        after in 1u64..u64::MAX - 2, life in 1u64..1000,
        options in proptest::collection::btree_map("[!-~]{1,30}", ".{0,30}", 0..6),
        extensions in proptest::collection::btree_map("[!-~]{1,30}", ".{0,30}", 0..6),
    ) {
        let ca = CaKey::generate_ed25519().unwrap();
        let spec = CertificateSpec {
            serial,
            key_id: key_id.parse().unwrap(),
            principals: principals(count),
            valid_after: after,
            valid_before: after.saturating_add(life).min(u64::MAX - 1),
            critical_options: options,
            extensions,
            ..spec()
        };
        let made = spec.sign(&ca).unwrap();
        let read = UserCertificate::parse(&made.line()).unwrap();
        prop_assert_eq!(&made, &read);
        prop_assert_eq!(read.serial(), spec.serial);
        prop_assert_eq!(read.key_id(), spec.key_id.as_str());
        prop_assert_eq!(read.principals(), spec.principals.iter().map(Principal::as_str).collect::<Vec<_>>());
        prop_assert_eq!((read.valid_after(), read.valid_before()), (spec.valid_after, spec.valid_before));
        let owned = |map: BTreeMap<&str, &str>| map.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(owned(read.critical_options()), spec.critical_options);
        prop_assert_eq!(owned(read.extensions()), spec.extensions);
        prop_assert_eq!(read.subject_line(), spec.subject.line());
    }
}

//! SSH keys and certificates: formats and signatures, and CA keys that an ssh-agent holds.
//!
//! - [`SubjectKey`]: the ephemeral key pair of one connection; [`SubjectPublicKey`]: a key that a CA may certify.
//! - [`CaKey`] and [`CaPublicKey`]: the authority's key, loaded with care, signing with aws-lc only.
//! - [`AgentKey`]: a CA key in an ssh-agent, asked for each signature; [`CaSigner`] is either.
//! - [`CertificateSpec`] makes a [`UserCertificate`]; [`UserCertificate::parse`] reads one, in its exact form only.
//! - [`verify_host_signature`]: what an agent needs to believe a `session-bind@openssh.com`.
//! - [`encoding`]: the data types of RFC 4251, shared with the agent protocol; [`agent_wire`]: what both ends of that share.
//!
//! ssh-key opens encrypted private keys; little else of it is used, and it never signs.
//!
//! ```
//! use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey};
//!
//! let ca = CaKey::generate_ed25519()?;
//! let key = SubjectKey::generate()?;
//! let certificate = CertificateSpec {
//!     subject: SubjectPublicKey::parse(&key.public_line())?,
//!     serial: 1,
//!     key_id: "alice@example.com".parse()?,
//!     principals: vec!["alice".parse()?],
//!     valid_after: 1_767_225_540,
//!     valid_before: 1_767_225_900,
//!     critical_options: Default::default(),
//!     extensions: [("permit-pty".into(), String::new())].into(),
//! }
//! .sign(&ca)?;
//! assert!(certificate.certifies(&key));
//! assert_eq!(certificate.ca_fingerprint(), ca.fingerprint());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent_address;
mod agent_key;
mod agent_message;
pub mod agent_wire;
mod ca_key;
mod ca_key_file;
mod ca_key_format;
mod ca_signer;
mod certificate;
mod certificate_spec;
pub mod encoding;
mod jws;
mod line;
mod openssh_key;
pub mod openssh_version;
mod public_key;
mod subject;

pub use agent_address::{AgentAddress, AgentAddressError, AgentKeyName};
pub use agent_key::{AgentError, AgentKey};
pub use ca_key::{CaKey, CaPublicKey, CaPublicKeyError, SigningError};
pub use ca_key_file::CaKeyError;
pub use ca_key_format::CaKeyFormatError;
pub use ca_signer::{CaSigner, SignerError};
pub use certificate::{CERTIFICATE_MAX, CertificateError, UserCertificate};
pub use certificate_spec::{CertificateSpec, CertificateSpecError, UnsignedCertificate};
pub use jws::JwsAlgorithm;
pub use line::{LineError, fingerprint};
pub use openssh_version::OpenSshVersion;
pub use public_key::{KeyFormatError, SignatureError, verify_host_signature};
pub use subject::{NoRandomness, SubjectKey, SubjectKeyError, SubjectPublicKey};

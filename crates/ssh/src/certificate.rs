//! Reading user certificates (draft-ietf-sshm-cert, formerly OpenSSH `PROTOCOL.certkeys`), in their exact form only.
//!
//! This is stricter than sshd: options out of order, a certificate without principals or without an end, a nonce too
//! short to be one, and bytes that follow are all refused, because no CA that is in order makes such certificates.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::ca_key::{CaPublicKey, CaPublicKeyError};
use crate::encoding::{Malformed, Reader};
use crate::line::{self, LineError};
use crate::public_key::{KeyFormatError, PublicKey, certified_algorithm};
use crate::subject::SubjectKey;

/// The largest certificate, in bytes. Every real one is far smaller; agents and HTTP bodies have more room.
pub const CERTIFICATE_MAX: usize = 32 * 1024;
/// The certificate type for users; hosts have 2.
pub(crate) const USER_ROLE: u32 = 1;
/// The shortest nonce that the draft allows.
const NONCE_MIN: usize = 16;

/// A certificate for a user whose form and signature have been checked.
///
/// That says nothing about who signed it: compare [`UserCertificate::ca_fingerprint`] with the CA that you trust.
/// Keeps the certificate's bytes and where its fields are in them, so that ten thousand of them stay small.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCertificate {
    blob: Box<[u8]>,
    fields: Fields,
}

/// Where things are in the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    serial: u64,
    valid_after: u64,
    valid_before: u64,
    algorithm: Span,
    subject: Span,
    key_id: Span,
    principals: Span,
    critical_options: Span,
    extensions: Span,
    ca_key: Span,
    signature: Span,
}

/// A part of the blob. Narrow, because [`CERTIFICATE_MAX`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

/// Why something is not a certificate that a user can log in with. The text continues "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a line of a `-cert.pub` file.
    #[error("the certificate {0}")]
    Line(#[from] LineError),
    /// It is larger than any real certificate.
    #[error("the certificate is {0} bytes long; at most {CERTIFICATE_MAX} are allowed")]
    TooLarge(usize),
    /// A plain key, or a type that we do not know.
    #[error("the certificate is of type {0:?}, which is not a certificate type that is supported")]
    Type(String),
    /// It does not follow the format.
    #[error("the certificate is damaged: {0}")]
    Malformed(#[from] Malformed),
    /// The certified key does not follow its format.
    #[error("the certificate's key {0}")]
    Subject(KeyFormatError),
    /// A host certificate.
    #[error("the certificate is not for a user (its type is {0}; users have 1)")]
    NotForUsers(u32),
    /// It would be valid for everybody.
    #[error("the certificate names no principal, or an empty one")]
    NoPrincipal,
    /// It has no beginning or no end.
    #[error("the certificate is valid for ever; a CA must give it a beginning and an end")]
    ForEver,
    /// It ends before it begins.
    #[error("the certificate ends ({valid_before}) before it begins ({valid_after})")]
    NeverValid {
        /// Unix seconds.
        valid_after: u64,
        /// Unix seconds.
        valid_before: u64,
    },
    /// Options must be in lexical order, each once.
    #[error("the certificate's options are not in order, or one is there twice")]
    OptionOrder,
    /// The signing key is not one that a CA may have.
    #[error("the certificate was signed by a key that is not allowed: {0}")]
    CaKey(#[from] CaPublicKeyError),
    /// The signature is not by the key that the certificate names as its CA.
    #[error("the certificate's signature is wrong")]
    Signature,
}

impl UserCertificate {
    /// Parses one line, `algorithm base64 [comment]`, and verifies the signature by the CA that it names.
    ///
    /// # Errors
    /// [`CertificateError`] for everything but a user certificate in its exact form.
    pub fn parse(line: &str) -> Result<Self, CertificateError> {
        let (_, blob) = line::parse(line)?;
        Self::from_blob(blob)
    }

    /// Reads a certificate as SSH carries it, and verifies the signature by the CA that it names.
    ///
    /// # Errors
    /// [`CertificateError`] for everything but a user certificate in its exact form.
    pub fn from_blob(blob: impl Into<Box<[u8]>>) -> Result<Self, CertificateError> {
        let certificate = Self::from_signed(blob)?;
        certificate.verify_signature()?;
        Ok(certificate)
    }

    /// Reads a certificate whose signature was just made here.
    pub(crate) fn from_signed(blob: impl Into<Box<[u8]>>) -> Result<Self, CertificateError> {
        let blob = blob.into();
        let fields = Fields::read(&blob)?;
        Ok(Self { blob, fields })
    }

    fn verify_signature(&self) -> Result<(), CertificateError> {
        // The string with the signature is the last field; everything before its length is signed.
        let signature = self.fields.signature.range();
        let signed = &self.blob[..signature.start - 4];
        let ca_key = CaPublicKey::from_blob(self.part(self.fields.ca_key))?;
        if ca_key.verify(signed, &self.blob[signature]) {
            Ok(())
        } else {
            Err(CertificateError::Signature)
        }
    }

    fn part(&self, span: Span) -> &[u8] {
        &self.blob[span.range()]
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.part(span)).expect("the text was checked when the certificate was read")
    }

    /// The certificate's type, such as `ssh-ed25519-cert-v01@openssh.com`.
    pub fn algorithm(&self) -> &str {
        self.text(self.fields.algorithm)
    }

    /// The CA's number for the certificate.
    pub fn serial(&self) -> u64 {
        self.fields.serial
    }

    /// What sshd logs about the holder. It is the CA's text: sanitise it before a terminal sees it.
    pub fn key_id(&self) -> &str {
        self.text(self.fields.key_id)
    }

    /// The names that the certificate is good for; at least one, none empty.
    pub fn principals(&self) -> Vec<&str> {
        let mut reader = Reader::new(self.part(self.fields.principals));
        std::iter::from_fn(|| reader.text().ok()).collect()
    }

    /// Whether `name` is among the principals.
    pub fn has_principal(&self, name: &str) -> bool {
        self.principals().contains(&name)
    }

    /// The first second at which the certificate is valid, in Unix time.
    pub fn valid_after(&self) -> u64 {
        self.fields.valid_after
    }

    /// The first second at which the certificate is no longer valid, in Unix time.
    pub fn valid_before(&self) -> u64 {
        self.fields.valid_before
    }

    /// Options that a host must understand or refuse the certificate, such as `force-command`. Flags have an empty value.
    pub fn critical_options(&self) -> BTreeMap<&str, &str> {
        options(self.part(self.fields.critical_options)).collect()
    }

    /// What the certificate permits, such as `permit-pty`. Flags have an empty value.
    pub fn extensions(&self) -> BTreeMap<&str, &str> {
        options(self.part(self.fields.extensions)).collect()
    }

    fn subject(&self) -> PublicKey<'_> {
        let algorithm = certified_algorithm(self.algorithm()).unwrap_or_default();
        PublicKey::parse_parts(algorithm, &mut Reader::new(self.part(self.fields.subject)))
            .expect("the key was read when the certificate was")
    }

    /// The certified key, `algorithm base64`.
    pub fn subject_line(&self) -> String {
        let subject = self.subject();
        line::format(subject.algorithm(), &subject.to_blob())
    }

    /// Whether the certificate is for this key.
    pub fn certifies(&self, key: &SubjectKey) -> bool {
        self.subject().to_blob() == key.public_blob()
    }

    /// `SHA256:...` of the certified key.
    pub fn public_key_fingerprint(&self) -> String {
        line::fingerprint(&self.subject().to_blob())
    }

    /// `SHA256:...` of the key that signed the certificate.
    pub fn ca_fingerprint(&self) -> String {
        line::fingerprint(self.part(self.fields.ca_key))
    }

    /// `SHA256:...` of the whole certificate: a name for this very one.
    pub fn fingerprint(&self) -> String {
        line::fingerprint(&self.blob)
    }

    /// The certificate as SSH carries it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// `algorithm base64`, without comment or line end.
    pub fn line(&self) -> String {
        line::format(self.algorithm(), &self.blob)
    }
}

impl fmt::Debug for UserCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCertificate")
            .field("serial", &self.serial())
            .field("key_id", &self.key_id())
            .field("principals", &self.principals())
            .field("valid_after", &self.valid_after())
            .field("valid_before", &self.valid_before())
            .field("ca", &self.ca_fingerprint())
            .finish_non_exhaustive()
    }
}

impl Fields {
    /// Reads the whole certificate, in the order of its fields, and checks everything but the signature.
    fn read(blob: &[u8]) -> Result<Self, CertificateError> {
        if blob.len() > CERTIFICATE_MAX {
            return Err(CertificateError::TooLarge(blob.len()));
        }
        let mut reader = Reader::new(blob);
        let end = |reader: &Reader<'_>| blob.len() - reader.rest().len();
        // The string that was read last ends where the reader stands.
        let last = |reader: &Reader<'_>, part: &[u8]| span(end(reader) - part.len(), end(reader));

        let algorithm_name = reader.text()?;
        let algorithm = last(&reader, algorithm_name.as_bytes());
        let unsupported = || CertificateError::Type(algorithm_name.chars().take(64).collect());
        let subject_algorithm = certified_algorithm(algorithm_name).ok_or_else(unsupported)?;
        if reader.string()?.len() < NONCE_MIN {
            return Err(Malformed::Value.into());
        }
        let subject_start = end(&reader);
        match PublicKey::parse_parts(subject_algorithm, &mut reader) {
            Ok(key) if key.certificate_algorithm() == algorithm_name => {}
            Ok(_) | Err(KeyFormatError::Algorithm(_) | KeyFormatError::Certificate) => {
                return Err(unsupported());
            }
            Err(error) => return Err(CertificateError::Subject(error)),
        }
        let subject = span(subject_start, end(&reader));
        let serial = reader.u64()?;
        match reader.u32()? {
            USER_ROLE => {}
            other => return Err(CertificateError::NotForUsers(other)),
        }
        let key_id_text = reader.text()?;
        let key_id = last(&reader, key_id_text.as_bytes());
        let principal_list = reader.string()?;
        let principals = last(&reader, principal_list);
        check_principals(principal_list)?;
        let valid_after = reader.u64()?;
        let valid_before = reader.u64()?;
        check_times(valid_after, valid_before)?;
        let critical_list = reader.string()?;
        let critical_options = last(&reader, critical_list);
        check_options(critical_list)?;
        let extension_list = reader.string()?;
        let extensions = last(&reader, extension_list);
        check_options(extension_list)?;
        if !reader.string()?.is_empty() {
            return Err(Malformed::Value.into());
        }
        let ca_key_blob = reader.string()?;
        let ca_key = last(&reader, ca_key_blob);
        let signature_blob = reader.string()?;
        let signature = last(&reader, signature_blob);
        reader.finish()?;
        Ok(Self {
            serial,
            valid_after,
            valid_before,
            algorithm,
            subject,
            key_id,
            principals,
            critical_options,
            extensions,
            ca_key,
            signature,
        })
    }
}

fn span(start: usize, end: usize) -> Span {
    let narrow = |place| u16::try_from(place).expect("a certificate is shorter than CERTIFICATE_MAX");
    Span {
        start: narrow(start),
        end: narrow(end),
    }
}

fn check_principals(list: &[u8]) -> Result<(), CertificateError> {
    let mut reader = Reader::new(list);
    if reader.is_empty() {
        return Err(CertificateError::NoPrincipal);
    }
    while !reader.is_empty() {
        if reader.text()?.is_empty() {
            return Err(CertificateError::NoPrincipal);
        }
    }
    Ok(())
}

pub(crate) fn check_times(valid_after: u64, valid_before: u64) -> Result<(), CertificateError> {
    if valid_after == 0 || valid_before == u64::MAX {
        return Err(CertificateError::ForEver);
    }
    if valid_after >= valid_before {
        return Err(CertificateError::NeverValid {
            valid_after,
            valid_before,
        });
    }
    Ok(())
}

/// Names in strictly rising order; data either empty or one string (draft-ietf-sshm-cert section 2.1.9).
fn check_options(list: &[u8]) -> Result<(), CertificateError> {
    let mut reader = Reader::new(list);
    let mut previous: Option<&str> = None;
    while !reader.is_empty() {
        let name = reader.text()?;
        if previous.is_some_and(|previous| previous >= name) {
            return Err(CertificateError::OptionOrder);
        }
        previous = Some(name);
        option_value(reader.string()?)?;
    }
    Ok(())
}

fn option_value(data: &[u8]) -> Result<&str, Malformed> {
    if data.is_empty() {
        return Ok("");
    }
    let mut reader = Reader::new(data);
    let value = reader.text()?;
    reader.finish()?;
    Ok(value)
}

/// The options of a list that [`check_options`] has seen.
fn options(list: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut reader = Reader::new(list);
    std::iter::from_fn(move || Some((reader.text().ok()?, option_value(reader.string().ok()?).ok()?)))
}

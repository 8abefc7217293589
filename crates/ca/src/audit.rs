//! The audit log: one JSON line for every decision, written before its certificate leaves.

use crate::authority::Issued;
use epithet_ssh::SubjectPublicKey;
use epithet_wire::limits::HOST_NAME_MAX;
use epithet_wire::{ConnectionFields, RequestId};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where the lines go.
#[derive(Debug)]
pub struct AuditLog {
    sink: Mutex<Sink>,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    File(File, PathBuf),
}

/// Why a line could not be written; nothing is issued then.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Opening the file.
    #[error("--audit-file {0}: {1}")]
    Open(PathBuf, io::Error),
    /// Writing to it.
    #[error("the audit log cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What every line says, and what it says of a certificate or of a refusal.
#[derive(Debug, Serialize)]
pub(crate) struct AuditLine<'a> {
    time: Timestamp,
    event: &'static str,
    request_id: &'a RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    remote_host: &'a str,
    remote_user: &'a str,
    port: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    proxy_jump: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_fingerprint: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateLine<'a>>,
    ca_fingerprint: &'a str,
    client: String,
}

#[derive(Debug, Serialize)]
struct CertificateLine<'a> {
    // As text: many JSON readers round numbers above 2^53.
    serial: String,
    key_id: &'a str,
    principals: Vec<&'a str>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
    extensions: Vec<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    critical_options: BTreeMap<&'a str, &'a str>,
    cert_fingerprint: String,
}

/// What is known of a request whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) connection: &'a ConnectionFields,
    pub(crate) subject: Option<&'a SubjectPublicKey>,
    pub(crate) ca_fingerprint: &'a str,
    pub(crate) client: String,
}

impl<'a> AuditLine<'a> {
    /// A certificate is about to leave.
    pub(crate) fn issued(asked: &Asked<'a>, issued: &'a Issued, now: Timestamp) -> Self {
        let certificate = &issued.certificate;
        let time = |second: u64| Timestamp::from_second(i64::try_from(second).ok()?).ok();
        let line = CertificateLine {
            serial: certificate.serial().to_string(),
            key_id: certificate.key_id(),
            principals: certificate.principals(),
            valid_after: time(certificate.valid_after()),
            valid_before: time(certificate.valid_before()),
            extensions: certificate.extensions().into_keys().collect(),
            critical_options: certificate.critical_options(),
            cert_fingerprint: certificate.fingerprint(),
        };
        Self {
            identity: Some(&issued.identity),
            rule: issued.rule.as_deref(),
            certificate: Some(line),
            ..Self::new("certificate issued", asked, now)
        }
    }

    /// A request is about to be refused.
    pub(crate) fn refused(asked: &Asked<'a>, status: u16, reason: &'a str, now: Timestamp) -> Self {
        Self {
            status: Some(status),
            reason: Some(reason),
            ..Self::new("certificate refused", asked, now)
        }
    }

    fn new(event: &'static str, asked: &Asked<'a>, now: Timestamp) -> Self {
        Self {
            time: now,
            event,
            request_id: asked.request_id,
            status: None,
            reason: None,
            identity: None,
            rule: None,
            remote_host: bounded(&asked.connection.remote_host),
            remote_user: bounded(&asked.connection.remote_user),
            port: asked.connection.port,
            proxy_jump: bounded(&asked.connection.proxy_jump),
            public_key_fingerprint: asked.subject.map(SubjectPublicKey::fingerprint),
            certificate: None,
            ca_fingerprint: asked.ca_fingerprint,
            client: asked.client.clone(),
        }
    }
}

/// A stranger's text, of a length that a log can bear. JSON takes care of its characters.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(HOST_NAME_MAX)]
}

impl AuditLog {
    /// Lines to stdout.
    pub fn stdout() -> Self {
        Self {
            sink: Mutex::new(Sink::Stdout),
        }
    }

    /// Lines appended to a file, which is made for its owner only when it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn file(path: &Path) -> Result<Self, AuditError> {
        let file = open(path).map_err(|error| AuditError::Open(path.to_owned(), error))?;
        Ok(Self {
            sink: Mutex::new(Sink::File(file, path.to_owned())),
        })
    }

    /// Opens the file again, after it was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> Result<(), AuditError> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::File(file, path) = &mut *sink {
            *file = open(path).map_err(|error| AuditError::Open(path.clone(), error))?;
        }
        Ok(())
    }

    /// Writes one line, whole or not at all as far as the file system allows.
    pub(crate) fn write(&self, line: &AuditLine<'_>) -> Result<(), AuditError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *sink {
            Sink::Stdout => io::stdout().lock().write_all(&text)?,
            Sink::File(file, _) => file.write_all(&text)?,
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

//! A request for a certificate, read and checked before anybody is asked about it.

use epithet_ssh::{SubjectKeyError, SubjectPublicKey};
use epithet_wire::ca::CertificateRequest;
use epithet_wire::limits::{IDEMPOTENCY_KEY_MAX, PRINCIPAL_MAX};
use epithet_wire::{ConnectionFields, HostName, TOKEN_ENCODING_HEADER, Token, TokenError};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Longest list of jump hosts, and longest `%C`.
const JUMP_MAX: usize = 1024;
const HASH_MAX: usize = 128;

/// A request that can be decided.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) subject: SubjectPublicKey,
    pub(crate) connection: ConnectionFields,
}

/// Why a request cannot be decided. The texts that epithet 0.19 has are the same here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("missing Authorization header")]
    NoAuthorization,
    #[error("Authorization header must use Bearer scheme")]
    NotBearer,
    #[error("empty Bearer token")]
    EmptyToken,
    #[error("{0}")]
    Token(TokenError),
    #[error(
        "the Idempotency-Key must come once and be 1 to {IDEMPOTENCY_KEY_MAX} printable characters without blanks"
    )]
    IdempotencyKey,
    #[error("unable to parse body: {0}")]
    Json(#[from] serde_json::Error),
    #[error("publicKey and connection.remoteHost are required")]
    Incomplete,
    #[error("connection.{0}")]
    Connection(String),
    #[error("error generating crt: {0}")]
    Key(#[from] SubjectKeyError),
}

/// A body that cannot be decided, with what it says about the connection if that can be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) error: BadRequest,
    pub(crate) connection: Option<Box<ConnectionFields>>,
}

impl From<BadRequest> for Unreadable {
    fn from(error: BadRequest) -> Self {
        Self {
            error,
            connection: None,
        }
    }
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        BadRequest::from(error).into()
    }
}

impl BadRequest {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoAuthorization | Self::NotBearer | Self::EmptyToken => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// The token of a request: what follows `Bearer `, decoded if its header says that it is encoded.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Token, BadRequest> {
    let value = headers.get(AUTHORIZATION).ok_or(BadRequest::NoAuthorization)?;
    let token = value
        .as_bytes()
        .strip_prefix(b"Bearer ")
        .ok_or(BadRequest::NotBearer)?;
    if token.is_empty() {
        return Err(BadRequest::EmptyToken);
    }
    let encoding = headers.get(TOKEN_ENCODING_HEADER).map(HeaderValue::as_bytes);
    Token::from_header(token, encoding).map_err(BadRequest::Token)
}

/// Whether a body is a request that can be decided. For the fuzzers.
#[doc(hidden)]
pub fn is_request(body: &[u8]) -> bool {
    Asked::read(body).is_ok()
}

impl Asked {
    /// Reads a body. Names that no host and no user can have go no further: neither to policy nor into a log.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let request: CertificateRequest = epithet_wire::read_document(body)?;
        let connection = request.connection;
        if request.public_key.is_empty() || connection.remote_host.is_empty() {
            return Err(BadRequest::Incomplete.into());
        }
        let wrong = |field: &str, problem: &dyn std::fmt::Display| {
            BadRequest::Connection(format!("{field}: {problem}"))
        };
        HostName::parse(&connection.remote_host).map_err(|error| wrong("remoteHost", &error))?;
        let is_plain = |text: &str, max: usize| text.len() <= max && !text.chars().any(char::is_control);
        // Policy says whether there is such a user, also for the empty name that some clients send.
        if !is_plain(&connection.remote_user, PRINCIPAL_MAX) {
            return Err(wrong("remoteUser", &"is too long or has control characters").into());
        }
        if u16::try_from(connection.port).is_err() {
            return Err(wrong("port", &"is larger than 65535").into());
        }
        if !is_plain(&connection.proxy_jump, JUMP_MAX) {
            return Err(wrong("proxyJump", &"is too long or has control characters").into());
        }
        if !is_plain(&connection.hash, HASH_MAX) {
            return Err(wrong("hash", &"is too long or has control characters").into());
        }
        match SubjectPublicKey::parse(request.public_key.trim_end()) {
            Ok(subject) => Ok(Self { subject, connection }),
            Err(error) => Err(Unreadable {
                error: error.into(),
                connection: Some(Box::new(connection)),
            }),
        }
    }
}

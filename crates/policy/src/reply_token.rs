//! The policy server's signature under its answers, for CAs that have its key (`--policy-key`).
//!
//! It names the question by the `jti` of the CA's token and the answer by its status and the hash of its body, so an
//! answer is good for one question only, whoever stands between the two.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, to_bytes};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_serve::text;
use epithet_ssh::CaSigner;
use epithet_wire::limits::SERVICE_TOKEN_LIFE;
use epithet_wire::policy::{REPLY_AUDIENCE, REPLY_SIGNATURE_HEADER, REPLY_TOKEN_TYPE, ReplyClaims};
use http::{HeaderName, HeaderValue, StatusCode};

/// The header in the form that costs nothing to send.
const SIGNATURE: HeaderName = HeaderName::from_static(REPLY_SIGNATURE_HEADER);
/// Far more than any answer of ours has.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// The answer with a signature; 503 when it cannot be signed, which a CA that wants one does not believe either.
pub(crate) async fn sign(key: &CaSigner, question: String, answer: Response, now: u64) -> Response {
    match signed(key, question, answer, now).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(error, "an answer could not be signed");
            text(StatusCode::SERVICE_UNAVAILABLE, "the answer could not be signed")
        }
    }
}

async fn signed(key: &CaSigner, question: String, answer: Response, now: u64) -> Result<Response, String> {
    let (mut head, body) = answer.into_parts();
    let body = to_bytes(body, BODY_MAX)
        .await
        .map_err(|error| error.to_string())?;
    let claims = ReplyClaims {
        iss: key.fingerprint(),
        aud: REPLY_AUDIENCE.to_owned(),
        jti: question,
        iat: now,
        exp: now + SERVICE_TOKEN_LIFE.as_secs(),
        status: head.status.as_u16(),
        bh: URL_SAFE_NO_PAD.encode(digest(&SHA256, &body)),
    };
    let header = format!(
        r#"{{"alg":"{}","typ":"{REPLY_TOKEN_TYPE}"}}"#,
        key.jws_algorithm()
    );
    let claims = serde_json::to_vec(&claims).map_err(|error| error.to_string())?;
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = key
        .sign_jws(token.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    let token = HeaderValue::try_from(token).map_err(|error| error.to_string())?;
    head.headers.insert(SIGNATURE, token);
    Ok(Response::from_parts(head, Body::from(body)))
}

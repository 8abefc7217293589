//! What a CA publishes, read no further than it may be long.

use anyhow::{Context, bail};
use epithet_wire::limits::HTTP_BODY_MAX;

/// The text of an answer of at most [`HTTP_BODY_MAX`] bytes. It is given up as soon as it is longer, however long it
/// would have gone on.
pub(crate) async fn published_text(mut response: reqwest::Response) -> anyhow::Result<String> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(innermost)? {
        if body.len() + piece.len() > HTTP_BODY_MAX {
            bail!("the CA's answer is larger than {HTTP_BODY_MAX} bytes");
        }
        body.extend_from_slice(&piece);
    }
    String::from_utf8(body)
        .ok()
        .context("the CA's answer is not text")
}

/// The reason that helps, without the URL, which the caller says.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
pub(crate) fn innermost(error: reqwest::Error) -> anyhow::Error {
    anyhow::anyhow!(epithet_wire::display::innermost(&error))
}

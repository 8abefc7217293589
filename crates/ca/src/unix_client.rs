//! HTTP over a Unix socket, to a process that runs as us or as root and nobody else.
//!
//! Who answers is asked of the system on each new connection (`SO_PEERCRED`), so a socket that somebody else put in the
//! policy server's place gets no token.

use crate::policy_client::{Answer, too_large};
use crate::policy_source::PolicyFailure;
use axum::body::Bytes;
use epithet_wire::limits::HTTP_BODY_MAX;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UnixStream;

/// A client of one socket. Connections are kept and reused.
#[derive(Debug)]
pub(crate) struct UnixClient(Client<Connector, Full<Bytes>>);

impl UnixClient {
    pub(crate) fn new(path: &Path, idle: Duration) -> Self {
        let connector = Connector {
            path: path.to_owned(),
        };
        Self(
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(idle)
                .build(connector),
        )
    }

    /// One exchange; the answer is read whole.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Answer, PolicyFailure> {
        let answer = self
            .0
            .request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        let (head, mut incoming) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|error| unreachable(&error))?.into_data() else {
                continue;
            };
            if body.len() + data.len() > HTTP_BODY_MAX {
                return Err(too_large());
            }
            body.extend_from_slice(&data);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.into(),
        })
    }
}

fn unreachable(error: &dyn std::error::Error) -> PolicyFailure {
    PolicyFailure::Unreachable(epithet_wire::display::innermost(error))
}

#[derive(Debug, Clone)]
struct Connector {
    path: PathBuf,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move {
            let stream = UnixStream::connect(&path)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            let uid = stream.peer_cred()?.uid();
            if uid != 0 && uid != rustix::process::geteuid().as_raw() {
                let problem = format!("who answers at {} runs as uid {uid}", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
            }
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}

/// A connection as hyper wants it.
#[derive(Debug)]
struct Stream(TokioIo<UnixStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

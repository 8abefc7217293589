//! The accept loop: one task per connection, bounded in number and in time, ended gently.

use crate::activity::Activity;
use crate::admission::{Admission, Admitted};
use crate::answer::busy;
use crate::forwarded::{self, TrustedProxy};
use crate::head;
use crate::listener::{Listener, Stream};
use crate::request::{ClientAddress, new_request_id};
use crate::room::Room;
use crate::tls::Tls;
use crate::write_deadline::WriteDeadline;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use epithet_wire::RequestId;
use epithet_wire::limits::{
    DRAIN, HTTP_CONNECTIONS, HTTP_CONNECTIONS_PER_ADDRESS, HTTP_GOODBYE, HTTP_HEADER_MAX, HTTP_LAST_CALL,
    HTTP_READ_DEADLINE, HTTP_ROOM, HTTP_ROOM_PER_ADDRESS, HTTP_WRITE_DEADLINE, HTTP2_IDLE,
};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// [`epithet_wire::ca::REQUEST_ID_HEADER`] in the form that costs nothing to send.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("epithet-request-id");
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// What is read of a head beyond the limit, so that it is our limit that counts, and not where hyper's buffer ends.
const HEAD_SLACK: usize = 16 * 1024;
/// What a client may send on one stream, and on all of a connection, before a handler has read it. No body is larger than
/// the first.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Silence after which an HTTP/2 peer is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// What a server that stops says with its last answer on a connection.
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// The pause after the first failed accept, doubled up to the second while they go on failing.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How many clients a server takes, and how long it gives them. The defaults are those of [`epithet_wire::limits`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Open connections in all; further ones wait in the system's queue.
    pub connections: usize,
    /// Open connections from one IPv4 address or IPv6 /64 other than this machine; further ones are closed at once.
    pub connections_per_address: usize,
    /// How long a client may take for a TLS handshake, for a request's headers, and between two requests.
    pub read_deadline: Duration,
    /// How long a client may leave unread what it was sent. On HTTP/2 it has to answer pings as well.
    pub write_deadline: Duration,
    /// How long an HTTP/2 connection is kept on which nothing is asked, though its client answers pings.
    pub idle: Duration,
    /// Once the server is told to stop, how long clients are taken in that the system has connected already.
    pub last_call: Duration,
    /// How long an HTTP/1.1 connection may then bring one more request.
    pub goodbye: Duration,
    /// How long requests in flight may go on once the server is told to stop.
    pub drain: Duration,
    /// Proxies whose `X-Forwarded-For` is believed, and whose connections are not counted.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// TLS, when this server speaks it itself.
    pub tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: HTTP_CONNECTIONS,
            connections_per_address: HTTP_CONNECTIONS_PER_ADDRESS,
            read_deadline: HTTP_READ_DEADLINE,
            write_deadline: HTTP_WRITE_DEADLINE,
            idle: HTTP2_IDLE,
            last_call: HTTP_LAST_CALL,
            goodbye: HTTP_GOODBYE,
            drain: DRAIN,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// Serves `router` on `listener` until `stop` is cancelled and the last request is answered or out of time.
///
/// Nothing a client does ends the server, and neither does a lack of descriptors: accepting is tried again, ever
/// more slowly. A handler that panics costs its connection and an error in the log.
pub async fn serve(listener: Listener, router: Router, settings: Settings, stop: CancellationToken) {
    let admission = Admission::new(settings.connections, settings.connections_per_address);
    let drain = settings.drain;
    let shared = Arc::new(Shared {
        router,
        settings,
        room: Room::new(HTTP_ROOM, HTTP_ROOM_PER_ADDRESS),
        stop: stop.clone(),
        abandon: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    let accepting = accept_all(&listener, &admission, &connections, &shared);
    stop.run_until_cancelled(accepting).await;
    let waiting = accept_all(&listener, &admission, &connections, &shared);
    let _ = tokio::time::timeout(shared.settings.last_call, waiting).await;
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "stopping with requests unanswered"
        );
        shared.abandon.cancel();
        connections.wait().await;
    }
}

/// What every connection of a server needs.
struct Shared {
    router: Router,
    settings: Settings,
    room: Room,
    stop: CancellationToken,
    abandon: CancellationToken,
}

async fn accept_all(listener: &Listener, admission: &Admission, tasks: &TaskTracker, shared: &Arc<Shared>) {
    let mut pause = BACK_OFF.0;
    while let Some(permit) = admission.room().await {
        match listener.accept().await {
            Ok((stream, client)) => {
                pause = BACK_OFF.0;
                let is_proxy = forwarded::is_trusted(client, &shared.settings.trusted_proxies);
                match admission.admit(permit, client, is_proxy) {
                    Some(admitted) => {
                        tasks.spawn(connection(stream, client, admitted, Arc::clone(shared)));
                    }
                    None => tracing::warn!(%client, "closed a connection: its address has too many"),
                }
            }
            Err(error) if is_the_clients_affair(&error) => {}
            Err(error) => {
                tracing::error!(%error, retry_in = ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Errors of one connection that accept reports; the next one may be fine.
fn is_the_clients_affair(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// One connection from its first byte to its last. What a protocol needs is allocated when that protocol is spoken: an idle
/// connection costs what it has, and not what the largest of all would have.
async fn connection(stream: Stream, client: ClientAddress, admitted: Admitted, shared: Arc<Shared>) {
    let work: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match (stream, &shared.settings.tls) {
        (Stream::Tcp(stream), None) => Box::pin(http1(stream, client, &shared)),
        (Stream::Unix(stream), _) => Box::pin(http1(stream, client, &shared)),
        (Stream::Tcp(stream), Some(tls)) => Box::pin(over_tls(stream, tls, client, &shared)),
    };
    // Dropping the work closes the connection, whatever it was doing.
    shared.abandon.run_until_cancelled(work).await;
    drop(admitted);
}

async fn over_tls(stream: TcpStream, tls: &Tls, client: ClientAddress, shared: &Arc<Shared>) {
    let handshake = Box::pin(tls.acceptor().accept(stream));
    match tokio::time::timeout(shared.settings.read_deadline, handshake).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            Box::pin(http2(Box::new(stream), client, shared)).await;
        }
        Ok(Ok(stream)) => Box::pin(http1(Box::new(stream), client, shared)).await,
        Ok(Err(error)) => tracing::debug!(%client, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%client, "TLS handshake took too long"),
    }
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin, client: ClientAddress, shared: &Arc<Shared>) {
    let service = service_fn(|request| answer(shared, request, client));
    let stream = WriteDeadline::new(stream, shared.settings.write_deadline);
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.settings.read_deadline)
            .max_buf_size(HTTP_HEADER_MAX + HEAD_SLACK)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        // A request that has arrived when the stop does is read first.
        biased;
        ended = connection.as_mut() => ended,
        () = shared.stop.cancelled() => {
            // One that is on its way is answered, with the word that it was the last; only then silence is an end.
            match tokio::time::timeout(shared.settings.goodbye, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    log_early_end(client, ended);
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin, client: ClientAddress, shared: &Arc<Shared>) {
    let activity = Arc::new(Activity::default());
    let (shared_by_all, busy) = (Arc::clone(shared), Arc::clone(&activity));
    let service = service_fn(move |request| {
        let (shared, begun) = (Arc::clone(&shared_by_all), busy.begin());
        async move {
            let answered = answer(&shared, request, client).await;
            drop(begun);
            answered
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(shared.settings.read_deadline)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(HTTP_HEADER_MAX).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .serve_connection(TokioIo::new(stream), service)
    );
    let first = shared.settings.read_deadline;
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = activity.silence(first, shared.settings.idle) => {
            connection.as_mut().graceful_shutdown();
            // Who says nothing may not take the goodbye either.
            tokio::time::timeout(first, connection).await.unwrap_or(Ok(()))
        }
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    log_early_end(client, ended);
}

fn log_early_end(client: ClientAddress, ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "connection ended early");
    }
}

/// One request: named (as the client named it, if that is a name), told who sent it, handled, and its reply named too.
async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    peer: ClientAddress,
) -> Result<Response, Infallible> {
    let client = forwarded::client(peer, request.headers(), &shared.settings.trusted_proxies);
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| RequestId::parse(value.to_str().ok()?).ok());
    let id = given.unwrap_or_else(new_request_id);
    let name = HeaderValue::from_str(id.as_str());
    let is_http1 = request.version() <= Version::HTTP_11;
    let (mut head, body) = request.into_parts();
    head.extensions.insert(id);
    head.extensions.insert(client);
    let mut response = handled(shared, head, Body::new(body), client).await?;
    if let (Ok(name), false) = (name, response.headers().contains_key(&REQUEST_ID)) {
        response.headers_mut().insert(REQUEST_ID, name);
    }
    if is_http1 && shared.stop.is_cancelled() {
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    Ok(response)
}

/// Has the router answer a request that is clear and for which there is room.
async fn handled(
    shared: &Shared,
    mut head: Parts,
    body: Body,
    client: ClientAddress,
) -> Result<Response, Infallible> {
    let size = head::size(&head);
    if let Some(refusal) = head::refusal(&head, size) {
        return Ok(refusal);
    }
    let mut held = shared.room.hold(client);
    if held.take(size).is_err() {
        return Ok(busy());
    }
    head.extensions.insert(shared.room.clone());
    let response = shared.router.clone().call(Request::from_parts(head, body)).await;
    drop(held);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_header_is_the_one_of_the_vocabulary() {
        assert!(
            REQUEST_ID
                .as_str()
                .eq_ignore_ascii_case(epithet_wire::ca::REQUEST_ID_HEADER)
        );
    }
}

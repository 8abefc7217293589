//! The loopback listener that the browser is sent back to (RFC 8252 section 7.3).
//!
//! It lives as long as one login, listens on loopback addresses only, and hears one thing: a GET for the
//! redirect path, with the very host name of the redirect address (so that no web page can reach it under a
//! name of its own, DNS rebinding), from this user. Whatever else comes gets an answer and changes nothing.

use crate::authorization::{Authorization, Response, ResponseError};
use crate::options::RedirectHost;
use crate::page::Page;
use crate::peer::{self, Peer};
use epithet_wire::limits::{
    LOGIN_CONNECTIONS_MAX, LOGIN_PAGE_DEADLINE, LOGIN_REQUEST_DEADLINE, LOGIN_REQUEST_MAX,
};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many free ports are tried when another program has the same port on the other loopback address.
const PORT_ATTEMPTS: usize = 16;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// All the ports that were named are taken.
    #[error("none of the ports {ports:?} is free on {host}: {source}; is another login waiting?")]
    PortsTaken {
        /// Those of `--port`.
        ports: Vec<u16>,
        /// Where.
        host: &'static str,
        /// What the system said about the last one.
        source: io::Error,
    },
    /// Not even a port of the system's choice.
    #[error("cannot listen on {host}: {source}")]
    Unavailable {
        /// Where.
        host: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Bound and listening, not yet answering.
#[derive(Debug)]
pub(crate) struct Listener {
    sockets: Vec<TcpListener>,
    host: RedirectHost,
    port: u16,
    path: String,
}

/// What came to the listener and matters.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The one answer that belongs to our request.
    Answer(Answer),
    /// An answer that belongs to another login: something for the person to know. Any web page can send one, so only the
    /// first is told.
    Stray(ResponseError),
}

/// The answer to our request has come; the browser waits for its page.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Option<Result<Response, ResponseError>>,
    page: oneshot::Sender<Page>,
    written: oneshot::Receiver<()>,
}

impl Answer {
    /// What it says; once.
    pub(crate) fn take_response(&mut self) -> Result<Response, ResponseError> {
        self.response.take().unwrap_or(Err(ResponseError::Incomplete))
    }

    /// Gives the browser its page and waits, briefly, until it has it.
    pub(crate) async fn show(self, page: Page) {
        if self.page.send(page).is_ok() {
            let _ = timeout(LOGIN_PAGE_DEADLINE, self.written).await;
        }
    }
}

/// Answers until it is dropped; then the port is closed.
#[derive(Debug)]
pub(crate) struct Serving {
    heard: mpsc::Receiver<Heard>,
    tasks: JoinSet<()>,
}

impl Serving {
    /// What comes. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// Closes the port before it returns.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Listener {
    /// Binds the first of `ports` that is free, or any free port when the list is empty.
    pub(crate) async fn bind(host: RedirectHost, ports: &[u16], path: &str) -> Result<Self, ListenError> {
        let mut last = None;
        let attempts = if ports.is_empty() {
            &[0; PORT_ATTEMPTS][..]
        } else {
            ports
        };
        for port in attempts {
            match bind_both(host, *port).await {
                Ok((sockets, port)) => {
                    return Ok(Self {
                        sockets,
                        host,
                        port,
                        path: path.to_owned(),
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        let source = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        let host = host.as_str();
        Err(if ports.is_empty() {
            ListenError::Unavailable { host, source }
        } else {
            ListenError::PortsTaken {
                ports: ports.to_vec(),
                host,
                source,
            }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:{port}/callback`
    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://{}:{}{}", self.host.as_str(), self.port, self.path)
    }

    /// Starts answering, for this request.
    pub(crate) fn serve(self, authorization: Arc<Authorization>) -> Serving {
        let (sender, heard) = mpsc::channel(2);
        let site = Arc::new(Site {
            authority: format!("{}:{}", self.host.as_str(), self.port),
            path: if self.path.is_empty() {
                "/".to_owned()
            } else {
                self.path
            },
            authorization,
            is_answered: AtomicBool::new(false),
            has_strayed: AtomicBool::new(false),
            heard: sender,
            connections: Arc::new(Semaphore::new(LOGIN_CONNECTIONS_MAX)),
        });
        let mut tasks = JoinSet::new();
        for socket in self.sockets {
            tasks.spawn(accept(socket, site.clone()));
        }
        Serving { heard, tasks }
    }
}

/// Both loopback addresses on one port, so that the browser finds us whichever it tries first.
async fn bind_both(host: RedirectHost, port: u16) -> io::Result<(Vec<TcpListener>, u16)> {
    let (first, second): (SocketAddr, fn(u16) -> SocketAddr) = match host {
        RedirectHost::Ipv6 => ((Ipv6Addr::LOCALHOST, port).into(), |port| {
            (Ipv4Addr::LOCALHOST, port).into()
        }),
        _ => ((Ipv4Addr::LOCALHOST, port).into(), |port| {
            (Ipv6Addr::LOCALHOST, port).into()
        }),
    };
    let first = TcpListener::bind(first).await?;
    let port = first.local_addr()?.port();
    match TcpListener::bind(second(port)).await {
        Ok(second) => Ok((vec![first, second], port)),
        // Under the name `localhost` the browser may go there, and give the code to whoever that is.
        Err(error) if host == RedirectHost::Localhost && error.kind() == io::ErrorKind::AddrInUse => {
            Err(error)
        }
        Err(_) => Ok((vec![first], port)),
    }
}

/// What every connection needs to know.
struct Site {
    authority: String,
    path: String,
    authorization: Arc<Authorization>,
    is_answered: AtomicBool,
    has_strayed: AtomicBool,
    heard: mpsc::Sender<Heard>,
    connections: Arc<Semaphore>,
}

async fn accept(socket: TcpListener, site: Arc<Site>) {
    let mut connections = JoinSet::new();
    while let Ok(permit) = site.connections.clone().acquire_owned().await {
        match socket.accept().await {
            Ok((stream, peer)) => {
                let site = site.clone();
                connections.spawn(async move {
                    site.attend(stream, peer).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

impl Site {
    async fn attend(&self, mut stream: TcpStream, peer: SocketAddr) {
        // Before anything is read: a stranger is not waited for.
        match stream.local_addr().map(|own| peer::of_connection(own, peer)) {
            Ok(Peer::Stranger(uid)) => {
                tracing::warn!(
                    uid,
                    "a request to the login's listener came from another user and was refused"
                );
                let page = Page::stray(403, "This request came from another user of this machine.");
                return write(stream, &page).await;
            }
            Ok(Peer::Gone) => return,
            _ => {}
        }
        let Ok(Some(head)) = timeout(LOGIN_REQUEST_DEADLINE, read_head(&mut stream)).await else {
            return;
        };
        match read_request(&head, &self.authority, &self.path) {
            Err(page) => write(stream, &page).await,
            Ok(query) => self.take(stream, query).await,
        }
    }

    /// Hands a response that belongs to our request on, once, and shows what becomes of it.
    async fn take(&self, stream: TcpStream, query: &str) {
        let response = self.authorization.read_response(query);
        if let Err(error) = &response
            && !error.is_ours()
        {
            if !self.has_strayed.swap(true, Ordering::SeqCst) {
                let _ = self.heard.try_send(Heard::Stray(error.clone()));
            }
            return write(stream, &Page::stray(400, &error.to_string())).await;
        }
        if self.is_answered.swap(true, Ordering::SeqCst) {
            return write(stream, &Page::stray(409, "This login has been answered already.")).await;
        }
        let (page, shown) = oneshot::channel();
        let (done, written) = oneshot::channel();
        let answer = Answer {
            response: Some(response),
            page,
            written,
        };
        if self.heard.send(Heard::Answer(answer)).await.is_err() {
            return;
        }
        let page = shown
            .await
            .unwrap_or_else(|_| Page::failure("The login in the terminal has ended."));
        write(stream, &page).await;
        let _ = done.send(());
    }
}

/// The query of a request for the redirect path, or what to say to another one.
pub(crate) fn read_request<'h>(head: &'h str, authority: &str, own_path: &str) -> Result<&'h str, Page> {
    let mut lines = head.split("\r\n");
    let mut line = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (line.next(), line.next(), line.next(), line.next())
    else {
        return Err(Page::stray(400, "This is not an HTTP request."));
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Page::stray(400, "This is not an HTTP/1.1 request."));
    }
    let mut hosts = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    if (hosts.next(), hosts.next()) != (Some(authority), None) {
        return Err(Page::stray(421, "This request was meant for another host."));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != own_path {
        return Err(Page::stray(404, "There is nothing at this address."));
    }
    if method != "GET" {
        return Err(Page::stray(405, "Only GET is answered here."));
    }
    Ok(query)
}

/// Everything up to the empty line, or nothing when it is too long or not text.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let seen = head.len().saturating_sub(3);
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        let end = head[seen..].windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end.map(|end| seen + end)
            && end + 4 <= LOGIN_REQUEST_MAX
        {
            head.truncate(end);
            return String::from_utf8(head).ok();
        }
        if head.len() > LOGIN_REQUEST_MAX {
            write_to(stream, &Page::stray(400, "This request is too long.")).await;
            return None;
        }
    }
}

async fn write(mut stream: TcpStream, page: &Page) {
    write_to(&mut stream, page).await;
}

async fn write_to(stream: &mut TcpStream, page: &Page) {
    let written = async {
        stream.write_all(&page.response(true)).await?;
        stream.shutdown().await?;
        // What the browser sent and we did not read would reset the connection before the page is seen.
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(LOGIN_PAGE_DEADLINE / 2, written).await;
}

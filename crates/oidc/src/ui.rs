//! What a login has to say to the person, and what it needs from them. The binary decides how it looks.

use crate::browser::BrowserError;
use crate::device::DeviceCode;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use url::Url;

/// Something to show to the people who wait. `Display` gives the words for a terminal, possibly several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Log in at this address, in a browser on this machine.
    Browser {
        /// Where.
        url: Url,
        /// Whether a browser was started with it.
        is_open: bool,
        /// After how long a code for another device is offered, if nothing came back by then.
        code_after: Option<Duration>,
    },
    /// The browser has not come back for a while. A [`Notice::DeviceCode`] follows when there can be one.
    Silence {
        /// Where the provider was asked to send it.
        redirect_uri: String,
        /// Whether a code for another device is asked for now.
        has_code: bool,
    },
    /// Log in at this address in any browser, and bring the address back on which it ends.
    Paste {
        /// Where.
        url: Url,
        /// The listener; a GET of the pasted address, with this in place of its scheme, host and path, delivers it.
        deliver_to: Url,
        /// Whether the address leads back to this very machine, so that `ssh -L` makes the browser find it.
        is_loopback: bool,
    },
    /// Enter this code there (RFC 8628).
    DeviceCode {
        /// The code.
        user_code: String,
        /// Where to enter it.
        verification_uri: Url,
        /// The same with the code in it, worth a QR code.
        complete: Option<Url>,
        /// For how long it is good.
        expires_in: Duration,
    },
    /// One line: why something is done again or in another way.
    Note(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Browser {
                url,
                is_open,
                code_after,
            } => {
                f.write_str(match is_open {
                    true => "A browser window should have opened. If not, log in here:\n",
                    false => "Log in here, in a browser on this machine:\n",
                })?;
                write!(f, "  {url}")?;
                if let Some(after) = code_after {
                    let seconds = after.as_secs();
                    write!(
                        f,
                        "\nIf its page shows an error, wait: after {seconds} s you get a code for another device."
                    )?;
                }
                Ok(())
            }
            Self::Silence {
                redirect_uri,
                has_code,
            } => {
                write!(
                    f,
                    "The browser has not come back yet. If its page says that the redirect address is wrong: this login uses\n  \
                     {redirect_uri}\nRegister that at the provider (with --port, where the port counts), or name one that is \
                     registered: --redirect-host, --redirect-path, --port."
                )?;
                if *has_code {
                    f.write_str(" To log in all the same:")?;
                }
                Ok(())
            }
            Self::Paste {
                url,
                deliver_to,
                is_loopback,
            } => {
                write!(f, "Log in here, in any browser:\n  {url}\n")?;
                if *is_loopback && let Some(port) = deliver_to.port() {
                    let host = deliver_to.host_str().unwrap_or("127.0.0.1");
                    writeln!(
                        f,
                        "If this is an ssh session, run this on your own machine first and it will find its way back:"
                    )?;
                    writeln!(f, "  ssh -N -L {port}:{host}:{port} {}", this_machine())?;
                }
                write!(
                    f,
                    "Otherwise the browser ends on a page that it cannot open: copy its address and paste it here."
                )
            }
            Self::DeviceCode {
                user_code,
                verification_uri,
                complete,
                expires_in,
            } => {
                write!(
                    f,
                    "Open {verification_uri} on any device and enter the code\n  {user_code}"
                )?;
                if let Some(complete) = complete {
                    write!(f, "\nor open\n  {complete}")?;
                }
                write!(
                    f,
                    "\nThe code is good for {} minutes.",
                    expires_in.as_secs().div_ceil(60)
                )
            }
            Self::Note(line) => f.write_str(line),
        }
    }
}

impl Notice {
    /// A code to enter.
    pub(crate) fn code(code: &DeviceCode) -> Self {
        Self::DeviceCode {
            user_code: code.user_code.clone(),
            verification_uri: code.verification_uri.clone(),
            complete: code.complete.clone(),
            expires_in: code.expires_in,
        }
    }
}

/// What this machine calls itself, for a line that somebody types elsewhere; they may know it by another name.
fn this_machine() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let is_a_name = !name.is_empty() && !name.starts_with('-');
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    match is_a_name && is_plain {
        true => name.into_owned(),
        false => "<this machine>".to_owned(),
    }
}

/// The person, as far as a login can reach them.
pub trait LoginUi: Send {
    /// Shows something. Never blocks for long, never fails.
    fn show(&mut self, notice: &Notice);

    /// Starts a browser and returns at once. See [`crate::browser::open`].
    ///
    /// # Errors
    /// There is none, or none is wanted; the address is then shown to be opened by hand.
    fn open_browser(&mut self, url: &Url) -> Result<(), BrowserError>;

    /// Waits for an address that the person pastes; `None` when nobody can. Must be cancel-safe.
    fn pasted(&mut self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        Box::pin(std::future::ready(None))
    }
}

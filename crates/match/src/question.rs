//! The question itself: check the names, ask the broker, show what it says, and end with its answer.

use crate::arguments::Options;
use crate::asker::asker;
use crate::client::{BrokerClient, ClientError};
use crate::follow::follow;
use crate::{EXIT_ALLOW, EXIT_DENY, say};
use epithet_wire::broker::{DRY_RUN, MatchRequest, Request};
use epithet_wire::display::sanitize_text;
use rustix::process::{Pid, getppid};

/// Asks the broker and says the exit code. Everything for the person has been written to stderr by then.
pub fn ask(options: &Options) -> u8 {
    let parent = getppid();
    if std::env::var_os(DRY_RUN).is_some() {
        return EXIT_ALLOW;
    }
    let asker = asker();
    let lends_stderr = asker.stderr;
    let request = MatchRequest {
        remote_host: options.host.clone(),
        remote_user: options.user.clone(),
        port: options.port.into(),
        proxy_jump: options.jump.clone(),
        hash: options.hash.clone(),
        by_name: options.by_name,
        asker: Some(asker),
    };
    // Without a hash it is the broker that checks the names: it makes the hash.
    if !options.by_name
        && let Err(error) = request.connection().check()
    {
        say(&format!("epithet: {error}; ssh goes on without Epithet\n"));
        return EXIT_DENY;
    }
    match converse(options, request, lends_stderr, parent) {
        Ok(code) => code,
        Err(ClientError::Unwanted) => EXIT_DENY,
        Err(ClientError::NoBroker(error)) => {
            if options.verbose {
                say(&format!(
                    "epithet: {} (nobody listens at {}); start one: epithet agent --background\n",
                    ClientError::NoBroker(error),
                    options.broker.display()
                ));
            }
            EXIT_DENY
        }
        Err(error) => {
            say(&format!("epithet: {error}; ssh goes on without Epithet\n"));
            EXIT_DENY
        }
    }
}

/// Sends the request and follows the replies to the result.
fn converse(
    options: &Options,
    request: MatchRequest,
    lends_stderr: bool,
    parent: Option<Pid>,
) -> Result<u8, ClientError> {
    let request = Request {
        match_: Some(request),
        ..Request::default()
    };
    let mut broker = BrokerClient::send(&options.broker, &request, lends_stderr)?.asked_by(parent);
    let reply = follow(&mut broker, &mut |text| say(text))?;
    // An answer that is not one is a "no", too.
    let result = reply.result.unwrap_or_default();
    let error = sanitize_text(result.error.as_bytes());
    if !error.is_empty() {
        say(&format!("epithet: {}\n", error.trim_end()));
    }
    Ok(if result.allow { EXIT_ALLOW } else { EXIT_DENY })
}

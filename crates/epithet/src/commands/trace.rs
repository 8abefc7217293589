//! `epithet trace last`: where the time of the last connections went.

mod waterfall;

use super::ask_broker::converse;
use crate::cli::TraceOptions;
use crate::terminal::Screen;
use anyhow::{Context, bail};
use epithet_wire::broker::{Empty, Request};
use epithet_wire::trace::Trace;
use jiff::Timestamp;
use std::io::Write;
use std::process::ExitCode;

/// Asks the broker and draws what it remembers.
pub(crate) fn last(options: &TraceOptions) -> anyhow::Result<ExitCode> {
    let request = Request {
        trace: Some(Empty {}),
        ..Request::default()
    };
    let reply = converse(&options.broker, &request)?;
    let traces = reply
        .traces
        .context("the broker answered something else; restart it with `epithet agent stop` and `epithet agent --background`")?;
    let wanted = wanted(traces, options);
    if wanted.is_empty() {
        match &options.request_id {
            Some(id) => bail!("the broker remembers no request {id}; it keeps the last ones only, in memory"),
            None if options.json => {}
            None => bail!("no ssh has asked the broker yet\ntry: ssh HOST, then this again"),
        }
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&wanted)? + "\n",
        false => {
            let screen = Screen::of_stdout();
            let now = Timestamp::now();
            let drawn = wanted.iter().map(|trace| waterfall::draw(trace, screen, now));
            drawn.collect::<Vec<_>>().join("\n")
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// The newest last; with a request id, all of that request.
fn wanted(traces: Vec<Trace>, options: &TraceOptions) -> Vec<Trace> {
    if let Some(id) = &options.request_id {
        // As it stands in a key id, too.
        let id = id.strip_prefix("req=").unwrap_or(id);
        return traces
            .into_iter()
            .filter(|trace| trace.request_id == id)
            .collect();
    }
    let skipped = traces.len().saturating_sub(options.number);
    traces.into_iter().skip(skipped).collect()
}

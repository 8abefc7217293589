//! The smallest program that logs a person in, twice: the second time by refresh.
//!
//! `cargo run -p epithet-oidc --example login -- https://issuer.example client-id [browser command]`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use epithet_oidc::browser::{self, BrowserChoice, BrowserError};
use epithet_oidc::{Issuer, LoginOptions, LoginUi, Notice, login};
use std::error::Error;
use std::sync::Arc;
use url::Url;

struct Terminal(BrowserChoice);

impl LoginUi for Terminal {
    fn show(&mut self, notice: &Notice) {
        println!("{notice}");
    }

    fn open_browser(&mut self, url: &Url) -> Result<(), BrowserError> {
        browser::open(&self.0, url)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(issuer), Some(client_id)) = (arguments.next(), arguments.next()) else {
        return Err("usage: login ISSUER CLIENT_ID [BROWSER COMMAND]".into());
    };
    let mut terminal = Terminal(
        arguments
            .next()
            .map_or(BrowserChoice::System, BrowserChoice::Command),
    );
    let options = LoginOptions::new(Arc::default(), Issuer::parse(&issuer)?, client_id);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let first = login(&options, b"", &mut terminal).await?;
            println!("{:?}: {:#?}", first.how, first.claims);
            let second = login(&options, first.state.expose(), &mut terminal).await?;
            println!("{:?}", second.how);
            Ok(())
        })
}

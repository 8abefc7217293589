//! A development identity provider to try a client against by hand. It ends with the end of its input (Ctrl-D).

use epithet_devidp::{DevProvider, Settings};
use std::io::{Read as _, Write as _};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = DevProvider::start(Settings::default())?;
    let client = &provider.settings().client_id;
    writeln!(std::io::stdout(), "issuer {}, client {client}", provider.issuer())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

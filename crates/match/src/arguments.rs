//! The command line of `epithet match`: one source for parsing and for help.

use std::ffi::OsString;
use std::path::PathBuf;

/// What `epithet match --help` prints.
pub const HELP: &str = "\
Ask the broker whether this connection can use a certificate (ssh runs this)

OpenSSH runs this command through the line that `epithet agent` writes into its ssh-config.conf. It exits 0 when the
connection's agent socket is listening, and 1 otherwise; ssh then goes on with the person's other keys.

Usage: epithet match --host <HOST> --port <PORT> --user <USER> (--hash <HASH>|--by-name) --broker <SOCKET>
                     [--jump <HOSTS>]

Options:
  -H, --host <HOST>      The host ssh will dial (%h)
  -p, --port <PORT>      The port (%p)
  -r, --user <USER>      The user to log in as (%r)
  -C, --hash <HASH>      ssh's name for the connection (%C): 40 or 64 hexadecimal digits
      --by-name          In place of --hash, for OpenSSH before 8.3: the agent is found as USER@HOST
  -j, --jump <HOSTS>     The jump hosts (%j), where ssh knows them; only logged
  -b, --broker <SOCKET>  The broker's socket
  -v, --verbose          Say why, also when there is no broker
  -h, --help             Print help
  -V, --version          Print version

Exit codes: 0 use the agent, 1 do not, 80 wrong command line
";

/// A parsed command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `--host`
    pub host: String,
    /// `--port`
    pub port: u16,
    /// `--user`
    pub user: String,
    /// `--hash`; empty with `--by-name`.
    pub hash: String,
    /// `--by-name`
    pub by_name: bool,
    /// `--jump`
    pub jump: String,
    /// `--broker`
    pub broker: PathBuf,
    /// `--verbose`
    pub verbose: bool,
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// To ask the broker.
    Answer(Options),
    /// [`HELP`].
    Help,
    /// The version.
    Version,
}

/// A wrong command line; says which flag and what it should be.
#[derive(Debug)]
pub struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl Options {
    /// Reads the arguments after the command's name.
    ///
    /// The values are not checked here beyond their form; [`crate::ask`] does that.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Wanted, UsageError> {
        use lexopt::Arg::{Long, Short};
        let mut parser = lexopt::Parser::from_args(arguments);
        let (mut host, mut port, mut user, mut hash, mut broker) = (None, None, None, None, None);
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('H') | Long("host") => host = Some(text(&mut parser, "--host")?),
                Short('p') | Long("port") => port = Some(text(&mut parser, "--port")?),
                Short('r') | Long("user") => user = Some(text(&mut parser, "--user")?),
                Short('C') | Long("hash") => hash = Some(text(&mut parser, "--hash")?),
                Long("by-name") => options.by_name = true,
                Short('j') | Long("jump") => options.jump = text(&mut parser, "--jump")?,
                Short('b') | Long("broker") => broker = Some(parser.value()?),
                Short('v') | Long("verbose") => options.verbose = true,
                Short('h') | Long("help") => return Ok(Wanted::Help),
                Short('V') | Long("version") => return Ok(Wanted::Version),
                _ => return Err(argument.unexpected().into()),
            }
        }
        let missing = |flag: &str| UsageError(format!("{flag} is required"));
        options.host = host.ok_or_else(|| missing("--host"))?;
        options.user = user.ok_or_else(|| missing("--user"))?;
        options.hash = match (hash, options.by_name) {
            (Some(hash), false) => hash,
            (None, true) => String::new(),
            (None, false) => {
                return Err(UsageError("--hash is required, or --by-name".to_owned()));
            }
            (Some(_), true) => {
                return Err(UsageError(
                    "--hash and --by-name exclude each other; give one".to_owned(),
                ));
            }
        };
        options.broker = broker.ok_or_else(|| missing("--broker"))?.into();
        let port = port.ok_or_else(|| missing("--port"))?;
        options.port = (port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| UsageError("--port must be a number from 1 to 65535".to_owned()))?;
        Ok(Wanted::Answer(options))
    }
}

fn text(parser: &mut lexopt::Parser, flag: &str) -> Result<String, UsageError> {
    parser
        .value()?
        .into_string()
        .map_err(|_| UsageError(format!("{flag} must be UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Wanted, UsageError> {
        Options::parse(line.iter().map(OsString::from))
    }

    #[test]
    fn the_line_ssh_runs_is_understood_in_both_spellings() {
        let long = [
            "--host", "h", "--port", "22", "--user", "root", "--hash", "abc", "--jump", "", "--broker", "/s",
        ];
        let short = [
            "-H", "h", "-p", "22", "-r", "root", "-C", "abc", "-j", "", "-b", "/s",
        ];
        assert_eq!(parse(&long).unwrap(), parse(&short).unwrap());
        let joined = parse(&["--host=-x", "-p22", "-r=r", "--hash=c", "-b", "/s"]).unwrap();
        assert!(matches!(joined, Wanted::Answer(options) if options.host == "-x" && !options.by_name));
        let named = parse(&["-Hh", "-p22", "-rr", "--by-name", "-b", "/s"]).unwrap();
        assert!(matches!(named, Wanted::Answer(options) if options.by_name && options.hash.is_empty()));
    }

    #[test]
    fn a_wrong_line_names_the_flag() {
        let cases: [(&[&str], &str); 7] = [
            (&["-H", "h"], "--user"),
            (&["-H", "h", "-r", "r", "-b", "/s", "-p", "1"], "--by-name"),
            (
                &[
                    "-H",
                    "h",
                    "-r",
                    "r",
                    "-C",
                    "c",
                    "--by-name",
                    "-b",
                    "/s",
                    "-p",
                    "1",
                ],
                "--by-name",
            ),
            (
                &["-H", "h", "-r", "r", "-C", "c", "-b", "/s", "-p", "0"],
                "--port",
            ),
            (
                &["-H", "h", "-r", "r", "-C", "c", "-b", "/s", "-p", "ssh"],
                "--port",
            ),
            (&["--hots", "h"], "--hots"),
            (&["-H"], "-H"),
        ];
        for (line, flag) in cases {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        assert_eq!(parse(&["--help"]).unwrap(), Wanted::Help);
        assert_eq!(parse(&["-V"]).unwrap(), Wanted::Version);
    }
}

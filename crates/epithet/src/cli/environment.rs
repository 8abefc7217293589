//! The environment as the command line reads it: an empty variable is as if it were not set, and a wrong value is said to come
//! from its variable.
//!
//! Empty lines are common in files of environment variables (systemd's `EnvironmentFile`, compose), and mean "not this one".

use super::Cli;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};

/// A flag whose value is that of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FromVariable {
    /// With its dashes.
    pub(crate) flag: String,
    /// The variable's name.
    pub(crate) variable: String,
}

/// Parses the command line of this process. Says too which flags have their value from the environment.
pub(crate) fn parse() -> Result<(Cli, Vec<FromVariable>), clap::Error> {
    let command = without_empty_variables(Cli::command());
    let parsed = command.clone().try_get_matches().and_then(|mut matches| {
        let used = variables_used(&command, &matches);
        Cli::from_arg_matches_mut(&mut matches)
            .map(|cli| (cli, used))
            .map_err(|error| error.format(&mut command.clone()))
    });
    parsed.map_err(|error| naming_the_variable(error, &command))
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env().map(OsStr::to_owned) {
            Some(name) if is_empty(&name) => not_read(arg, &name),
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// The same argument, which still says its variable.
fn not_read(arg: Arg, name: &OsStr) -> Arg {
    let sign = if arg.is_hide_env_values_set() { "" } else { "=" };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = format!("{help} [env: {}{sign}]", name.display());
    arg.env(None::<&'static str>).help(help)
}

fn variables_used(command: &Command, matches: &ArgMatches) -> Vec<FromVariable> {
    let (mut used, mut at) = (Vec::new(), Some((command, matches)));
    while let Some((command, matches)) = at {
        let from_variable =
            |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable);
        let args = command.get_arguments().filter(|arg| arg.get_env().is_some());
        used.extend(args.filter(from_variable).filter_map(FromVariable::of));
        at = matches
            .subcommand()
            .and_then(|(name, within)| Some((command.find_subcommand(name)?, within)));
    }
    used
}

impl FromVariable {
    fn of(arg: &Arg) -> Option<Self> {
        Some(Self {
            flag: format!("--{}", arg.get_long()?),
            variable: arg.get_env()?.to_string_lossy().into_owned(),
        })
    }
}

/// The error with a tip that names the variable that the refused value is from, when it is from one.
fn naming_the_variable(mut error: clap::Error, command: &Command) -> clap::Error {
    let refused = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (Some(arg), Some(value)) = (
        refused(ContextKind::InvalidArg),
        refused(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let flag = arg.split([' ', '=']).next().unwrap_or_default();
    let given: Vec<OsString> = std::env::args_os().collect();
    let Some(variable) = variable_with(command, flag, value).filter(|_| !is_given(command, flag, &given))
    else {
        return error;
    };
    let tip = StyledStr::from(format!(
        "the value is that of the environment variable {variable}"
    ));
    let mut tips = match error.remove(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips,
        _ => Vec::new(),
    };
    tips.push(tip);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    error
}

/// Every argument of this flag, of all commands.
fn args_of<'a>(command: &'a Command, flag: &str) -> Vec<&'a Arg> {
    let is_it = |arg: &&Arg| {
        arg.get_long()
            .is_some_and(|long| flag.strip_prefix("--") == Some(long))
    };
    let mut found: Vec<&Arg> = command.get_arguments().filter(is_it).collect();
    for within in command.get_subcommands() {
        found.extend(args_of(within, flag));
    }
    found
}

/// The variable of this flag that holds this value, alone or among others.
fn variable_with(command: &Command, flag: &str, value: &str) -> Option<String> {
    args_of(command, flag).into_iter().find_map(|arg| {
        let held = std::env::var(arg.get_env()?).ok()?;
        let is_among = |delimiter| held.split(delimiter).any(|one| one == value);
        let holds = held == value || arg.get_value_delimiter().is_some_and(is_among);
        FromVariable::of(arg).filter(|_| holds).map(|from| from.variable)
    })
}

/// Whether the flag stands on the command line, which beats the environment.
fn is_given(command: &Command, flag: &str, given: &[OsString]) -> bool {
    let shorts: Vec<char> = args_of(command, flag)
        .iter()
        .filter_map(|arg| arg.get_short())
        .collect();
    given.iter().skip(1).filter_map(|word| word.to_str()).any(|word| {
        let is_long = word
            .strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let is_short = |short: &char| {
            word.strip_prefix('-')
                .is_some_and(|rest| rest.starts_with(*short))
        };
        is_long || shorts.iter().any(is_short)
    })
}

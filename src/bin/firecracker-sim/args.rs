//! The command line: Firecracker's arguments with Firecracker's rules, and the simulator's own beside them.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::log::DEFAULT_INSTANCE;

/// What a program knows of one of its arguments.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Flag,
    /// With a value.
    Value,
    /// With a value, and not to be left out.
    Required,
    /// With a value, and as often as wanted.
    Many,
}

pub(crate) const fn parameter(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Parameter {
    Parameter { name, kind, default, help }
}

/// Firecracker's, in the order of `--help`.
const PARAMETERS: &[Parameter] = &[
    parameter(
        "api-sock",
        Kind::Value,
        Some("/run/firecracker.socket"),
        "Path to unix domain socket used by the API.",
    ),
    parameter(
        "boot-timer",
        Kind::Flag,
        None,
        "Whether or not to load boot timer device for logging elapsed time since InstanceStart command.",
    ),
    parameter(
        "config-file",
        Kind::Value,
        None,
        "Path to a file that contains the microVM configuration in JSON format.",
    ),
    parameter(
        "describe-snapshot",
        Kind::Value,
        None,
        "Print the data format version of the provided snapshot state file.",
    ),
    parameter("enable-pci", Kind::Flag, None, "Enables PCIe support."),
    parameter("help", Kind::Flag, None, "Show the help message."),
    parameter(
        "http-api-max-payload-size",
        Kind::Value,
        Some("51200"),
        "Http API request payload max size, in bytes.",
    ),
    parameter("id", Kind::Value, Some(DEFAULT_INSTANCE), "MicroVM unique identifier."),
    parameter("level", Kind::Value, None, "Set the logger level."),
    parameter(
        "log-path",
        Kind::Value,
        None,
        "Path to a fifo or a file used for configuring the logger on startup.",
    ),
    parameter(
        "metadata",
        Kind::Value,
        None,
        "Path to a file that contains metadata in JSON format to add to the mmds.",
    ),
    parameter(
        "metrics-path",
        Kind::Value,
        None,
        "Path to a fifo or a file used for configuring the metrics on startup.",
    ),
    parameter("mmds-size-limit", Kind::Value, None, "Mmds data store limit, in bytes."),
    parameter("module", Kind::Value, None, "Set the logger module filter."),
    parameter(
        "no-api",
        Kind::Flag,
        None,
        "Optional parameter which allows starting and using a microVM without an active API socket.",
    ),
    parameter(
        "no-seccomp",
        Kind::Flag,
        None,
        "Optional parameter which allows starting and using a microVM without seccomp filtering. Not \
         recommended.",
    ),
    parameter(
        "parent-cpu-time-us",
        Kind::Value,
        None,
        "Parent process CPU time (wall clock, microseconds). This parameter is optional.",
    ),
    parameter(
        "seccomp-filter",
        Kind::Value,
        None,
        "Optional parameter which allows specifying the path to a custom seccomp filter. For advanced users.",
    ),
    parameter("show-level", Kind::Flag, None, "Whether or not to output the level in the logs."),
    parameter(
        "show-log-origin",
        Kind::Flag,
        None,
        "Whether or not to include the file path and line number of the log's origin.",
    ),
    parameter("snapshot-version", Kind::Flag, None, "Print the supported data format version."),
    parameter(
        "start-time-cpu-us",
        Kind::Value,
        None,
        "Process start CPU time (wall clock, microseconds). This parameter is optional.",
    ),
    parameter(
        "start-time-us",
        Kind::Value,
        None,
        "Process start time (wall clock, microseconds). This parameter is optional.",
    ),
    parameter("version", Kind::Flag, None, "Print the binary version number."),
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("Argument '{1}' cannot be used together with argument '{0}'.")]
    ForbiddenArgument(String, String),
    #[error("Argument '{0}' required, but not found.")]
    MissingArgument(String),
    #[error("The argument '{0}' requires a value, but none was supplied.")]
    MissingValue(String),
    #[error("Found argument '{0}' which wasn't expected, or isn't valid in this context.")]
    UnexpectedArgument(String),
    #[error("The argument '{0}' was provided more than once.")]
    DuplicateArgument(String),
    #[error("The value '{0}' of the argument 'sim-fault' is no fault; --sim-help lists them.")]
    InvalidFault(String),
}

/// What was given on a command line; defaults are filled in by [`Arguments::value`].
#[derive(Debug)]
pub(crate) struct Arguments {
    known: &'static [Parameter],
    given: BTreeMap<String, Vec<String>>,
}

/// The simulator's own arguments, which may stand anywhere.
#[derive(Debug, Default)]
pub(crate) struct SimArguments {
    pub(crate) wants_help: bool,
    pub(crate) faults: Vec<Fault>,
}

impl SimArguments {
    /// Takes them out of the command line.
    pub(crate) fn taken_from(line: &mut Vec<String>) -> Result<Self, ArgumentError> {
        let mut own = Self::default();
        let mut rest = Vec::new();
        let mut arguments = line.drain(..);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--sim-help" => own.wants_help = true,
                "--sim-fault" => {
                    let missing = || ArgumentError::MissingValue("sim-fault".to_owned());
                    let text = arguments.next().ok_or_else(missing)?;
                    own.faults.push(Fault::parse(&text).ok_or(ArgumentError::InvalidFault(text))?);
                }
                _ => rest.push(argument),
            }
        }
        drop(arguments);
        *line = rest;
        Ok(own)
    }
}

impl Arguments {
    /// Firecracker's. What stands after `--` is nobody's concern.
    pub(crate) fn of_firecracker(line: &[String]) -> Result<Self, ArgumentError> {
        let line = line.split(|argument| argument == "--").next().unwrap_or_default();
        let arguments = Self::parse(PARAMETERS, line)?;
        arguments.check_company()?;
        Ok(arguments)
    }

    /// `line` is without the program's name, and without `--` and what follows.
    pub(crate) fn parse(known: &'static [Parameter], line: &[String]) -> Result<Self, ArgumentError> {
        for alone in ["help", "version"] {
            let short = alone == "help" && line.iter().any(|argument| argument == "-h");
            if short || line.iter().any(|argument| argument.strip_prefix("--") == Some(alone)) {
                return Ok(Self { known, given: BTreeMap::from([(alone.to_owned(), Vec::new())]) });
            }
        }
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut words = line.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or(word);
            let parameter = known.iter().find(|known| known.name == name && word.starts_with("--"));
            let Some(Parameter { kind, .. }) = parameter.filter(|known| known.name != "help") else {
                return Err(ArgumentError::UnexpectedArgument(name.to_owned()));
            };
            if *kind != Kind::Many && given.contains_key(name) {
                return Err(ArgumentError::DuplicateArgument(name.to_owned()));
            }
            let values = given.entry(name.to_owned()).or_default();
            if *kind != Kind::Flag {
                let value = words.next().filter(|value| !value.starts_with("--"));
                values.push(value.ok_or_else(|| ArgumentError::MissingValue(name.to_owned()))?.clone());
            }
        }
        let mut required: Vec<_> = known.iter().filter(|known| known.kind == Kind::Required).collect();
        required.sort_unstable_by_key(|known| known.name);
        match required.iter().find(|known| !given.contains_key(known.name)) {
            Some(missing) => Err(ArgumentError::MissingArgument(missing.name.to_owned())),
            None => Ok(Self { known, given }),
        }
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.given.contains_key(flag)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let default = || self.known.iter().find(|known| known.name == name).and_then(|known| known.default);
        self.values(name).first().map(String::as_str).or_else(default)
    }

    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.given.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn check_company(&self) -> Result<(), ArgumentError> {
        if self.has("no-api") && !self.has("config-file") {
            return Err(ArgumentError::MissingArgument("config-file".to_owned()));
        }
        if self.has("no-seccomp") && self.has("seccomp-filter") {
            return Err(ArgumentError::ForbiddenArgument(
                "no-seccomp".to_owned(),
                "seccomp-filter".to_owned(),
            ));
        }
        Ok(())
    }
}

/// What Firecracker prints of its own.
pub(crate) fn help() -> String {
    help_on(PARAMETERS)
}

pub(crate) fn help_on(known: &[Parameter]) -> String {
    let (required, optional): (Vec<_>, Vec<_>) =
        known.iter().partition(|parameter| parameter.kind == Kind::Required);
    let required = match help_lines(&required) {
        lines if lines.is_empty() => lines,
        lines => format!("required arguments:\n{lines}\n"),
    };
    format!("{required}optional arguments:\n{}", help_lines(&optional))
}

fn help_lines(parameters: &[&Parameter]) -> String {
    let shown = |Parameter { name, kind, .. }: &Parameter| match kind {
        Kind::Flag => format!("  --{name}"),
        Kind::Value | Kind::Required | Kind::Many => format!("  --{name} <{name}>"),
    };
    let width = parameters.iter().map(|parameter| shown(parameter).len()).max().unwrap_or(0);
    let lines = parameters.iter().map(|parameter| {
        let default =
            parameter.default.map(|default| format!(" [default: \"{default}\"]")).unwrap_or_default();
        format!("{:<width$}   {}{default}\n", shown(parameter), parameter.help)
    });
    lines.collect()
}

/// What is wrong with an id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    #[error("Invalid char ({0}) at position {1}")]
    InvalidChar(char, usize),
    #[error("Invalid len ({0});  the length must be between {1} and {2}")]
    InvalidLen(usize, usize, usize),
}

/// The rule for `--id` of Firecracker and of its jailer.
pub(crate) fn check_id(id: &str) -> Result<(), IdError> {
    if id.is_empty() || id.len() > 64 {
        return Err(IdError::InvalidLen(id.len(), 1, 64));
    }
    match id.chars().enumerate().find(|(_, c)| *c != '-' && !c.is_alphanumeric()) {
        Some((position, c)) => Err(IdError::InvalidChar(c, position)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::of_firecracker(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_value_may_not_look_like_an_argument() {
        assert_eq!(parse("--id --no-api").unwrap_err(), ArgumentError::MissingValue("id".to_owned()));
        assert_eq!(parse("--id").unwrap_err(), ArgumentError::MissingValue("id".to_owned()));
        assert_eq!(parse("id").unwrap_err(), ArgumentError::UnexpectedArgument("id".to_owned()));
    }

    #[test]
    fn help_and_version_outdo_mistakes() {
        assert!(parse("--nonsense --version").unwrap().has("version"));
        assert!(parse("-h --nonsense").unwrap().has("help"));
    }

    #[test]
    fn what_follows_two_dashes_is_ignored() {
        assert!(parse("--id a -- --nonsense").is_ok());
    }

    #[test]
    fn the_simulators_own_arguments_may_stand_anywhere() {
        let mut line: Vec<String> =
            ["--id", "a", "--", "--sim-fault", "1:drop", "b"].map(str::to_owned).to_vec();
        assert_eq!(SimArguments::taken_from(&mut line).unwrap().faults.len(), 1);
        assert_eq!(line, ["--id", "a", "--", "b"]);
    }

    #[test]
    fn an_id_has_letters_digits_and_dashes() {
        assert!(check_id("vm-1").is_ok());
        assert_eq!(check_id("a_b").unwrap_err(), IdError::InvalidChar('_', 1));
        assert_eq!(check_id("").unwrap_err(), IdError::InvalidLen(0, 1, 64));
    }
}

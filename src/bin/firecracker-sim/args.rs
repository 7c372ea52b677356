//! The command line: Firecracker's arguments with Firecracker's rules, and the simulator's own beside them.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::log::DEFAULT_INSTANCE;

const FLAG: bool = false;
const VALUE: bool = true;

/// Name, whether it takes a value, its default, its help: in the order of `--help`.
const ARGUMENTS: &[(&str, bool, Option<&str>, &str)] = &[
    ("api-sock", VALUE, Some("/run/firecracker.socket"), "Path to unix domain socket used by the API."),
    (
        "boot-timer",
        FLAG,
        None,
        "Whether or not to load boot timer device for logging elapsed time since InstanceStart command.",
    ),
    ("config-file", VALUE, None, "Path to a file that contains the microVM configuration in JSON format."),
    ("describe-snapshot", VALUE, None, "Print the data format version of the provided snapshot state file."),
    ("enable-pci", FLAG, None, "Enables PCIe support."),
    ("help", FLAG, None, "Show the help message."),
    ("http-api-max-payload-size", VALUE, Some("51200"), "Http API request payload max size, in bytes."),
    ("id", VALUE, Some(DEFAULT_INSTANCE), "MicroVM unique identifier."),
    ("level", VALUE, None, "Set the logger level."),
    ("log-path", VALUE, None, "Path to a fifo or a file used for configuring the logger on startup."),
    ("metadata", VALUE, None, "Path to a file that contains metadata in JSON format to add to the mmds."),
    ("metrics-path", VALUE, None, "Path to a fifo or a file used for configuring the metrics on startup."),
    ("mmds-size-limit", VALUE, None, "Mmds data store limit, in bytes."),
    ("module", VALUE, None, "Set the logger module filter."),
    (
        "no-api",
        FLAG,
        None,
        "Optional parameter which allows starting and using a microVM without an active API socket.",
    ),
    (
        "no-seccomp",
        FLAG,
        None,
        "Optional parameter which allows starting and using a microVM without seccomp filtering. Not \
         recommended.",
    ),
    (
        "parent-cpu-time-us",
        VALUE,
        None,
        "Parent process CPU time (wall clock, microseconds). This parameter is optional.",
    ),
    (
        "seccomp-filter",
        VALUE,
        None,
        "Optional parameter which allows specifying the path to a custom seccomp filter. For advanced users.",
    ),
    ("show-level", FLAG, None, "Whether or not to output the level in the logs."),
    (
        "show-log-origin",
        FLAG,
        None,
        "Whether or not to include the file path and line number of the log's origin.",
    ),
    ("snapshot-version", FLAG, None, "Print the supported data format version."),
    (
        "start-time-cpu-us",
        VALUE,
        None,
        "Process start CPU time (wall clock, microseconds). This parameter is optional.",
    ),
    (
        "start-time-us",
        VALUE,
        None,
        "Process start time (wall clock, microseconds). This parameter is optional.",
    ),
    ("version", FLAG, None, "Print the binary version number."),
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

/// What was given of Firecracker's arguments; defaults are filled in by [`Arguments::value`].
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    given: BTreeMap<String, Option<String>>,
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
    /// `line` is without the program's name. What stands after `--` is nobody's concern.
    pub(crate) fn parse(line: &[String]) -> Result<Self, ArgumentError> {
        let line = line.split(|argument| argument == "--").next().unwrap_or_default();
        for alone in ["help", "version"] {
            let short = alone == "help" && line.iter().any(|argument| argument == "-h");
            if short || line.iter().any(|argument| argument.strip_prefix("--") == Some(alone)) {
                return Ok(Self { given: BTreeMap::from([(alone.to_owned(), None)]) });
            }
        }
        let mut given = BTreeMap::new();
        let mut arguments = line.iter();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").unwrap_or(argument);
            let known = ARGUMENTS.iter().find(|(known, ..)| *known == name && argument.starts_with("--"));
            let Some((_, takes_value, ..)) = known.filter(|(known, ..)| *known != "help") else {
                return Err(ArgumentError::UnexpectedArgument(name.to_owned()));
            };
            if given.contains_key(name) {
                return Err(ArgumentError::DuplicateArgument(name.to_owned()));
            }
            let value = if *takes_value {
                let value = arguments.next().filter(|value| !value.starts_with("--"));
                Some(value.ok_or_else(|| ArgumentError::MissingValue(name.to_owned()))?.clone())
            } else {
                None
            };
            given.insert(name.to_owned(), value);
        }
        let arguments = Self { given };
        arguments.check_company()?;
        Ok(arguments)
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.given.contains_key(flag)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let default =
            || ARGUMENTS.iter().find(|(known, ..)| *known == name).and_then(|(_, _, default, _)| *default);
        self.given.get(name).and_then(Option::as_deref).or_else(default)
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

pub(crate) fn help() -> String {
    let shown = |name: &str, takes_value: bool| {
        if takes_value { format!("  --{name} <{name}>") } else { format!("  --{name}") }
    };
    let width =
        ARGUMENTS.iter().map(|(name, takes_value, ..)| shown(name, *takes_value).len()).max().unwrap_or(0);
    let lines = ARGUMENTS.iter().map(|(name, takes_value, default, help)| {
        let default = default.map(|default| format!(" [default: \"{default}\"]")).unwrap_or_default();
        format!("{:<width$}   {help}{default}\n", shown(name, *takes_value))
    });
    format!("optional arguments:\n{}", lines.collect::<String>())
}

/// Firecracker's rule for `--id`, and its words for what breaks it.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > 64 {
        return Err(format!("InvalidLen({}, 1, 64)", id.len()));
    }
    match id.chars().enumerate().find(|(_, c)| *c != '-' && !c.is_alphanumeric()) {
        Some((position, c)) => Err(format!("InvalidChar({c:?}, {position})")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
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
        assert_eq!(check_id("a_b").unwrap_err(), "InvalidChar('_', 1)");
        assert_eq!(check_id("").unwrap_err(), "InvalidLen(0, 1, 64)");
    }
}

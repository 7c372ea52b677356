//! The log, as Firecracker writes it: one line a message, to stdout or to the file of `--log-path` and `PUT
//! /logger`. What is worth a line is decided where it happens. Times are UTC.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::metrics;
use mvm::sys::sync::lock;

/// The body of `PUT /logger`, and the logger's arguments on the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoggerConfig {
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) level: Option<Level>,
    pub(crate) show_level: Option<bool>,
    pub(crate) show_log_origin: Option<bool>,
    pub(crate) module: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The thread of Firecracker that would have said it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaker {
    Main,
    Api,
    Vcpu,
}

#[derive(Debug, thiserror::Error)]
#[error("Failed to open target file: {0}")]
pub(crate) struct LoggerUpdateError(io::Error);

#[derive(Debug, thiserror::Error)]
#[error("Failed to parse string to level filter: {0}")]
pub(crate) struct LevelFilterFromStrError(String);

struct Logger {
    target: Option<File>,
    level: Level,
    show_level: bool,
    show_origin: bool,
    module: Option<String>,
}

static LOGGER: Mutex<Logger> = Mutex::new(Logger {
    target: None,
    level: Level::Info,
    show_level: false,
    show_origin: false,
    module: None,
});
static INSTANCE: OnceLock<String> = OnceLock::new();

pub(crate) const DEFAULT_INSTANCE: &str = "anonymous-instance";

pub(crate) fn error(speaker: Speaker, origin: &str, message: &str) {
    write(Level::Error, speaker, origin, message);
}

pub(crate) fn warn(speaker: Speaker, origin: &str, message: &str) {
    write(Level::Warn, speaker, origin, message);
}

pub(crate) fn info(speaker: Speaker, origin: &str, message: &str) {
    write(Level::Info, speaker, origin, message);
}

/// Only what is given changes, but for the level, which falls back to its default.
pub(crate) fn configure(config: LoggerConfig) -> Result<(), LoggerUpdateError> {
    let target =
        config.log_path.map(|path| open_without_blocking(&path)).transpose().map_err(LoggerUpdateError)?;
    let mut logger = lock(&LOGGER);
    logger.level = config.level.unwrap_or(Level::Info);
    logger.target = target.or_else(|| logger.target.take());
    logger.show_level = config.show_level.unwrap_or(logger.show_level);
    logger.show_origin = config.show_log_origin.unwrap_or(logger.show_origin);
    logger.module = config.module.or_else(|| logger.module.take());
    Ok(())
}

/// The first name stays.
pub(crate) fn name_the_instance(id: &str) {
    let _ = INSTANCE.set(id.to_owned());
}

/// Opens a file or FIFO for the log, the metrics or the serial console; a FIFO that nobody reads is no
/// obstacle.
pub(crate) fn open_without_blocking(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .custom_flags(libc::O_NONBLOCK)
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

fn write(level: Level, speaker: Speaker, origin: &str, message: &str) {
    let mut logger = lock(&LOGGER);
    if level > logger.level
        || logger.module.as_deref().is_some_and(|module| !module_of(origin).starts_with(module))
    {
        return;
    }
    let instance = INSTANCE.get().map_or(DEFAULT_INSTANCE, String::as_str);
    let thread = match speaker {
        Speaker::Main => "main",
        Speaker::Api => "fc_api",
        Speaker::Vcpu => "fc_vcpu 0",
    };
    let level = if logger.show_level { format!(":{}", level.name()) } else { String::new() };
    let origin = if logger.show_origin { format!(":{origin}") } else { String::new() };
    let line = format!("{} [{instance}:{thread}{level}{origin}] {message}\n", timestamp(SystemTime::now()));
    let written = match &mut logger.target {
        Some(file) => file.write_all(line.as_bytes()),
        None => write_to_stdout(line.as_bytes()),
    };
    if written.is_err() {
        metrics::count("logger", "missed_log_count");
    }
}

/// Stdout is the log and the serial console at once.
pub(crate) fn write_to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// `src/firecracker/src/main.rs:333` belongs to the module `firecracker`.
fn module_of(origin: &str) -> &str {
    origin.strip_prefix("src/").and_then(|rest| rest.split('/').next()).unwrap_or(origin)
}

fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}", since.subsec_nanos())
}

/// Counts in years that start in March, so that the leap day comes last.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year_of_era, month + 3) } else { (year_of_era + 1, month - 9) };
    (year + era * 400, month, day)
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

impl FromStr for Level {
    type Err = LevelFilterFromStrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(LevelFilterFromStrError(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| de::Error::custom("Invalid LevelFilter"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_with_nanoseconds() {
        let leap_day = UNIX_EPOCH + Duration::new(1_709_210_096, 7);
        assert_eq!(timestamp(leap_day), "2024-02-29T12:34:56.000000007");
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00.000000000");
    }

    #[test]
    fn a_level_is_read_in_any_case() {
        assert_eq!("WARNING".parse::<Level>().unwrap(), Level::Warn);
        assert!("loud".parse::<Level>().is_err());
    }
}

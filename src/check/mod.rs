//! What this host can do for VMs, what it cannot, and what to do about it. It looks, and changes nothing.
//!
//! Who may use what is decided here once more only for a report; each operation finds out by itself.

mod cgroups;
mod directory;
mod kernel;
mod network;
mod process;
mod programs;

use crate::json::object;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What is looked at.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// The state directory, if it is known; it need not be there.
    pub(crate) directory: Option<&'a Path>,
    /// The VMM.
    pub(crate) firecracker: Option<&'a Path>,
    /// The program `jailer`; nothing for the one beside the VMM.
    pub(crate) jailer: Option<&'a Path>,
    /// The program `mvm-keeper`.
    pub(crate) keeper: Option<&'a Path>,
    /// The cgroups of VMs.
    pub(crate) cgroups: &'a [PathBuf],
    /// The cgroup in which those of VMs with limits are made.
    pub(crate) cgroup_parent: Option<&'a Path>,
    /// Where the programs are that grow disks; none: in the usual places.
    pub(crate) tools: &'a [PathBuf],
}

/// What was found.
#[derive(Debug)]
pub struct CheckReport(Vec<Finding>);

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding(Box<Content>);

#[derive(Debug)]
struct Content {
    name: &'static str,
    purpose: Purpose,
    status: Status,
    text: Cow<'static, str>,
    advice: Option<Cow<'static, str>>,
    seen: Value,
}

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Running VMs at all.
    Run,
    /// Restoring VMs whose memory a pager serves.
    Pager,
    /// Ending VMs with their owner, and bounding consoles while there is none.
    Keeper,
    /// Running VMs in jails.
    Jail,
    /// Limiting VMs.
    Cgroups,
    /// Network interfaces and firewalls.
    Network,
    /// Disks for VMs, made from images and snapshots.
    Disks,
    /// Guests in huge pages.
    HugePages,
    /// Tenants that learn nothing of each other by way of the hardware.
    Isolation,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It is.
    Yes,
    /// With limits, or it could not be found out.
    Limited,
    /// It is not.
    No,
}

const PURPOSES: [Purpose; 9] = [
    Purpose::Run,
    Purpose::Pager,
    Purpose::Keeper,
    Purpose::Jail,
    Purpose::Cgroups,
    Purpose::Network,
    Purpose::Disks,
    Purpose::HugePages,
    Purpose::Isolation,
];

impl CheckReport {
    /// Looks at everything.
    pub(crate) fn of(subject: &Subject<'_>) -> Self {
        let mut findings = programs::look(subject);
        findings.extend(process::look());
        findings.extend(kernel::look());
        findings.extend(directory::look(subject.directory));
        findings.push(programs::tools(subject.tools));
        findings.extend(cgroups::look(subject));
        findings.extend(network::look());
        Self(findings)
    }

    /// All that was looked at.
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }

    /// Whether this host can do that: the worst that was found for it.
    pub fn can(&self, purpose: Purpose) -> Status {
        let own = self.0.iter().filter(|finding| finding.0.purpose == purpose);
        own.map(|finding| finding.0.status).max().unwrap_or(Status::Limited)
    }

    /// The report, as docs/json.md describes it.
    pub fn json(&self) -> Value {
        let can = PURPOSES.map(|purpose| (purpose.name().to_owned(), self.can(purpose).name().into()));
        let findings = self.0.iter().map(Finding::json).collect::<Vec<_>>();
        object! { "can": Value::Object(can.into_iter().collect()), "findings": findings }
    }
}

impl fmt::Display for CheckReport {
    /// A line for each finding, and one for what to do about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for purpose in PURPOSES {
            writeln!(f, "{}: {}", purpose.phrase(), self.can(purpose).name())?;
            for finding in self.0.iter().filter(|finding| finding.0.purpose == purpose) {
                writeln!(f, "  {:<8}{:<20}{}", finding.0.status.name(), finding.0.name, finding.0.text)?;
                if let Some(advice) = &finding.0.advice {
                    writeln!(f, "{:30}-> {advice}", "")?;
                }
            }
        }
        Ok(())
    }
}

impl Finding {
    /// Something that is there.
    fn yes(name: &'static str, purpose: Purpose, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(name, purpose, text.into())
    }

    #[inline(never)]
    fn new(name: &'static str, purpose: Purpose, text: Cow<'static, str>) -> Self {
        let (status, seen) = (Status::Yes, Value::Object(Map::new()));
        Self(Box::new(Content { name, purpose, status, text, advice: None, seen }))
    }

    /// The same that is not, or is not all that it could be, with what to do about it.
    fn but(mut self, status: Status, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.status = status;
        self.0.advice = Some(advice.into());
        self
    }

    /// The same with another text.
    fn reading(mut self, text: String) -> Self {
        self.0.text = text.into();
        self
    }

    /// With what was seen, for programs.
    fn seeing(mut self, seen: Value) -> Self {
        self.0.seen = seen;
        self
    }

    /// What it is called, always the same.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What it is needed for.
    pub fn purpose(&self) -> Purpose {
        self.0.purpose
    }

    /// Whether it is there.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// What was found, for people.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// What to do about it, if there is anything.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    fn json(&self) -> Value {
        object! {
            "name": self.name(),
            "for": self.purpose().name(),
            "status": self.status().name(),
            "text": self.text(),
            "advice": self.advice(),
            "seen": self.0.seen.clone(),
        }
    }
}

impl Purpose {
    /// The name that JSON has for it.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is, for people.
    fn phrase(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Run => ("run", "Running VMs"),
            Self::Pager => ("pager", "Serving page faults of restored VMs"),
            Self::Keeper => ("keeper", "Watching over VMs while no owner lives"),
            Self::Jail => ("jail", "Running VMs in jails"),
            Self::Cgroups => ("cgroups", "Limiting VMs by cgroups"),
            Self::Network => ("network", "Making networks for VMs"),
            Self::Disks => ("disks", "Making disks for VMs"),
            Self::HugePages => ("huge_pages", "Guests in huge pages"),
            Self::Isolation => ("isolation", "Hiding tenants from each other"),
        }
    }
}

impl Status {
    /// The name that JSON has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Limited => "limited",
            Self::No => "no",
        }
    }
}

/// A small file of /proc or /sys, without the space around.
fn read(path: impl AsRef<Path>) -> io::Result<String> {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned())
}

/// The number in such a file.
fn number(path: &str) -> Option<u64> {
    read(path).ok()?.parse().ok()
}

//! Which CPU this host has: a snapshot that another one has taken may not run here.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

/// The CPU of a host, as far as snapshots depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostCpu {
    /// `x86_64` or `aarch64`.
    pub(crate) architecture: String,
    /// Who has made it: a name on `x86_64`, the implementer's number on `aarch64`.
    pub(crate) vendor: String,
    /// Which one it is: a name on `x86_64`, the part's number on `aarch64`.
    pub(crate) model: String,
}

impl fmt::Display for HostCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}: {}", self.architecture, self.vendor, self.model)
    }
}

const UNKNOWN: &str = "unknown";

/// Whether this CPU can run VMs, as far as it says so.
pub(crate) fn virtualizes() -> Option<bool> {
    let text = first_processor().ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags"))?;
    Some(flags.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

fn first_processor() -> io::Result<String> {
    let mut text = Vec::new();
    // The first processor is enough, and the kernel takes its time for each of the others.
    File::open("/proc/cpuinfo")?.take(4096).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl HostCpu {
    /// That of this host.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(crate) fn here() -> io::Result<Self> {
        Ok(Self::parse(std::env::consts::ARCH, &first_processor()?))
    }

    /// Whether a guest that was frozen on the one goes on on the other. Another model of the same vendor is for the CPU
    /// template to bridge.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.architecture == other.architecture && self.vendor == other.vendor
    }

    fn parse(architecture: &str, text: &str) -> Self {
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        let (vendor, model) = match architecture {
            "aarch64" => ("CPU implementer", "CPU part"),
            _ => ("vendor_id", "model name"),
        };
        let known = |name| field(name).unwrap_or_else(|| UNKNOWN.to_owned());
        Self { architecture: architecture.to_owned(), vendor: known(vendor), model: known(model) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(architecture: &str, vendor: &str, model: &str) -> HostCpu {
        HostCpu { architecture: architecture.into(), vendor: vendor.into(), model: model.into() }
    }

    #[test]
    fn the_first_processor_speaks_for_all() {
        let intel = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Xeon: 8124M @ 3GHz\n\n\
                     processor\t: 1\nvendor_id\t: Other\n";
        assert_eq!(HostCpu::parse("x86_64", intel), cpu("x86_64", "GenuineIntel", "Xeon: 8124M @ 3GHz"));
        let graviton = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(HostCpu::parse("aarch64", graviton), cpu("aarch64", "0x41", "0xd0c"));
        assert_eq!(HostCpu::parse("x86_64", ""), cpu("x86_64", UNKNOWN, UNKNOWN));
    }

    #[test]
    fn this_host_has_one() {
        let here = HostCpu::here().unwrap();
        assert_eq!(here.architecture, std::env::consts::ARCH);
        assert_ne!(here.vendor, UNKNOWN);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,200}", lines in "([a-zA-Z _]{0,12}\t?:.{0,9}\n){0,9}") {
            let _any = (HostCpu::parse("x86_64", &text), HostCpu::parse("aarch64", &lines));
        }
    }
}

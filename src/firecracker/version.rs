//! What each release of Firecracker can do: the one table of what differs between versions. What is wrong with which
//! release stands beside.

use super::Error;
use std::fmt;

/// A release of Firecracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1 in 1.16.1.
    pub major: u16,
    /// 16 in 1.16.1.
    pub minor: u16,
    /// 1 in 1.16.1.
    pub patch: u16,
}

/// What not every supported version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The `serial` section.
    Serial,
    /// The `pmem` section.
    Pmem,
    /// The `memory-hotplug` section.
    MemoryHotplug,
    /// `network_overrides` when a snapshot is loaded.
    NetworkOverrides,
    /// `vsock_override` when a snapshot is loaded.
    VsockOverride,
    /// `clock_realtime` when a snapshot is loaded.
    ClockRealtime,
    /// `track_dirty_pages` when a snapshot is loaded, which was `enable_diff_snapshots` before.
    TrackDirtyPagesOnLoad,
    /// Devices that come and go while the guest runs.
    DeviceHotplug,
    /// Diffs of VMs that do not track dirty pages.
    UntrackedDiff,
}

/// The oldest supported release.
pub(super) const OLDEST: Version = Version::new(1, 7, 0);

/// Where each feature begins, and how it is called in messages.
const FEATURES: [(Feature, Version, &str); 9] = [
    (Feature::Serial, Version::new(1, 14, 0), "the section \"serial\""),
    (Feature::Pmem, Version::new(1, 14, 0), "the section \"pmem\""),
    (Feature::MemoryHotplug, Version::new(1, 14, 0), "the section \"memory-hotplug\""),
    (Feature::NetworkOverrides, Version::new(1, 12, 0), "\"network_overrides\""),
    (Feature::VsockOverride, Version::new(1, 16, 0), "\"vsock_override\""),
    (Feature::ClockRealtime, Version::new(1, 16, 0), "\"clock_realtime\""),
    (Feature::TrackDirtyPagesOnLoad, Version::new(1, 13, 0), "\"track_dirty_pages\""),
    (Feature::DeviceHotplug, Version::new(1, 16, 0), "hotplugging a device"),
    (Feature::UntrackedDiff, Version::new(1, 13, 0), "a diff of a VM without \"track_dirty_pages\""),
];

impl Version {
    /// The release `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads what `--version` prints: `Firecracker v1.16.1`, perhaps with `-dev` or more behind.
    pub fn parse(output: &str) -> Option<Self> {
        Self::parse_number(output.lines().next()?.strip_prefix("Firecracker v")?)
    }

    /// Reads what `--snapshot-version` prints: `v10.0.0`.
    pub(super) fn parse_snapshot(output: &str) -> Option<Self> {
        Self::parse_number(output.lines().next()?.strip_prefix('v')?)
    }

    /// Reads `1.16.1`, perhaps with `-dev` or more behind.
    pub(crate) fn parse_number(words: &str) -> Option<Self> {
        let core = words.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
        let mut numbers = core.split('.').map(|number| number.parse().ok());
        let version = Self::new(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Says no when this release lacks `feature`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with the release that has it.
    pub fn require(self, feature: Feature) -> Result<(), Error> {
        match FEATURES.iter().find(|(known, ..)| *known == feature) {
            Some(&(_, since, what)) if self < since => Err(Error::Unsupported { what, since, version: self }),
            _ => Ok(()),
        }
    }

    /// Whether this release has `feature`.
    pub fn has(self, feature: Feature) -> bool {
        self.require(feature).is_ok()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_firecracker_says_of_itself_is_read() {
        let said = "Firecracker v1.16.1\n\n2026-01-01T00:00:00 [anonymous-instance:main] exiting";
        assert_eq!(Version::parse(said), Some(Version::new(1, 16, 1)));
        assert_eq!(Version::parse("Firecracker v1.17.0-dev"), Some(Version::new(1, 17, 0)));
    }

    #[test]
    fn anything_else_is_not_a_version() {
        for said in
            ["", "Firecracker v", "Firecracker v1.2", "Firecracker v1.2.3.4", "QEMU 8", "Firecracker vx.y.z"]
        {
            assert_eq!(Version::parse(said), None, "{said:?}");
        }
    }

    #[test]
    fn a_feature_is_refused_below_its_version_with_both_named() {
        let error = Version::new(1, 12, 0).require(Feature::Serial).unwrap_err().to_string();
        assert!(error.contains("1.14.0") && error.contains("1.12.0"), "{error}");
        assert!(Version::new(1, 14, 0).require(Feature::Serial).is_ok());
    }
}

//! What is known to be wrong with which release of Firecracker: the one table of it. What corrupts data is not done
//! with such a release; the rest is told.

use super::Version;
use std::fmt;

/// Something that is wrong with some releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The first release that has it.
    since: Version,
    /// The releases that mended it, in order: each for its own series, and the last one for all later ones too. None has
    /// when there is none.
    mended_in: &'static [Version],
    what: &'static str,
    harm: Harm,
}

/// What a problem does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Something fails, hangs or is let through, and does so by itself.
    Nuisance,
    /// A diff of a memory that has several slots has pages in wrong places.
    MisplacedPages,
}

/// A problem of one release, in words: what it is, and which release mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemOf {
    problem: &'static Problem,
    version: Version,
}

const fn v(minor: u16, patch: u16) -> Version {
    Version::new(1, minor, patch)
}

/// In the order of the releases that mended them. What is older than the oldest supported release, concerns builds for
/// debugging, or is nothing but slow, is left out.
const PROBLEMS: [Problem; 22] = [
    // firecracker#4099, mended by #4666.
    problem(
        v(7, 0),
        &[v(8, 0)],
        "timers of a restored guest may not fire, so that its processes seem to hang in sleeps",
    ),
    // #4578.
    problem(v(7, 0), &[v(8, 0)], "a VM cannot be restored by a pager on Linux 6.6 and later"),
    // #4618.
    problem(v(7, 0), &[v(9, 0)], "a restored guest may lose a timer interrupt and stop"),
    // #4826; broken by #4680.
    problem(v(9, 0), &[v(10, 0)], "a restored guest whose network device uses offloads has no network"),
    // firecracker#4736, mended by #4796 and #4812.
    problem(v(7, 0), &[v(10, 0)], "a guest that waits on a vsock connection waits for ever after a restore"),
    // #5045.
    problem(
        v(7, 0),
        &[v(11, 0)],
        "its jailer, leading a session, may end the VMM by SIGHUP when it was called with \"--new-pid-ns\"",
    ),
    // #5122.
    problem(
        v(7, 0),
        &[v(12, 0)],
        "a pager may find the connection of a restored VM closed before it is told of its memory",
    ),
    // #5277 in 1.12.1, #5260 in 1.13.0.
    problem(v(7, 0), &[v(12, 1), v(13, 0)], "a block device on a slow disk keeps all other devices waiting"),
    // CVE-2026-1386, mended by #5631.
    problem(
        v(7, 0),
        &[v(13, 2), v(14, 1)],
        "its jailer writes through a link that was planted in the jail, and so may overwrite a file of the host",
    ),
    // #5485.
    problem(v(7, 0), &[v(14, 0)], "vsock data is corrupted with guest kernels from 6.17 on"),
    // firecracker#5322, mended by #5494.
    problem(
        v(10, 0),
        &[v(14, 0)],
        "the soft lockup watchdog of a restored guest may report a lockup that was none",
    ),
    // #5696, mended by #5705.
    Problem {
        since: v(14, 0),
        mended_in: &[v(14, 2)],
        what: "a diff snapshot of more than 3 GiB of memory, or of hotpluggable memory, has pages in wrong places",
        harm: Harm::MisplacedPages,
    },
    // #5762.
    problem(
        v(7, 0),
        &[v(14, 4), v(15, 1)],
        "a guest with an entropy device can have the VMM allocate more memory than the guest has",
    ),
    // CVE-2026-5747, mended by #5818.
    problem(
        v(13, 0),
        &[v(14, 4), v(15, 1)],
        "a guest whose devices are on PCI (\"--enable-pci\") can write out of bounds of the VMM's memory",
    ),
    // #5793.
    problem(
        v(14, 0),
        &[v(14, 4), v(15, 1)],
        "hotplugged memory may be out of the guest's reach, or stay in it after it was unplugged",
    ),
    // #5809.
    problem(
        v(7, 0),
        &[v(14, 4), v(15, 1)],
        "the monotonic clock of a restored guest with kvm-clock jumps by the time since the snapshot was taken",
    ),
    // #5688.
    problem(v(7, 0), &[v(15, 0)], "a restored guest may be given a vsock port that is in use"),
    // #5764, #5738.
    problem(
        v(7, 0),
        &[v(16, 0)],
        "the serial console of a restored guest may stay silent, and asynchronous page faults in it may get stuck",
    ),
    // #5959.
    problem(
        v(16, 0),
        &[v(16, 1)],
        "its jailer refuses a network namespace that is named by a link, as those in /proc are",
    ),
    // firecracker#5969, mended by #5958; since #5872.
    problem(v(16, 0), &[v(16, 1)], "vsock connections that a restored guest opens may hang"),
    // #5956. In no release yet.
    problem(
        v(7, 0),
        &[],
        "on aarch64 its jailer gives the VMM whatever a link that was planted in the jail leads to",
    ),
    // firecracker#6074, #6100, #6031; since #5872 and #5882. In no release yet.
    problem(
        v(16, 0),
        &[],
        "vsock connections to a guest that was paused and resumed hang, or keep the VMM busy for ever",
    ),
];

const fn problem(since: Version, mended_in: &'static [Version], what: &'static str) -> Problem {
    Problem { since, mended_in, what, harm: Harm::Nuisance }
}

impl Version {
    /// All that is known to be wrong with this release.
    pub fn known_problems(self) -> impl Iterator<Item = ProblemOf> {
        let has = move |problem: &&Problem| problem.is_in(self);
        PROBLEMS.iter().filter(has).map(move |problem| ProblemOf { problem, version: self })
    }

    /// Why this release must not take a diff of a memory of several slots.
    pub(crate) fn misplaces_pages(self) -> Option<ProblemOf> {
        self.known_problems().find(|one| one.problem.harm == Harm::MisplacedPages)
    }
}

impl Problem {
    fn is_in(&self, version: Version) -> bool {
        version >= self.since && !self.mended_in.iter().any(|mended| self.is_mended_by(*mended, version))
    }

    fn is_mended_by(&self, mended: Version, version: Version) -> bool {
        let is_of_its_series = (mended.major, mended.minor) == (version.major, version.minor);
        let is_last = self.mended_in.last() == Some(&mended);
        version >= mended && (is_of_its_series || is_last)
    }
}

impl ProblemOf {
    /// The first later release that does not have it.
    pub fn mended_by(&self) -> Option<Version> {
        self.problem.mended_in.iter().find(|mended| **mended > self.version).copied()
    }
}

impl fmt::Display for ProblemOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; ", self.problem.what)?;
        match self.mended_by() {
            Some(mended) => write!(f, "Firecracker {mended} mends it"),
            None => write!(f, "no release mends it yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(minor: u16, patch: u16) -> String {
        v(minor, patch).known_problems().map(|problem| problem.to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_problem_is_told_of_the_releases_that_have_it_with_the_one_that_mends_it() {
        assert!(
            told(16, 0)
                .contains("vsock connections that a restored guest opens may hang; Firecracker 1.16.1 mends")
        );
        assert!(!told(16, 1).contains("restored guest opens"), "{}", told(16, 1));
        assert!(told(16, 1).contains("no release mends it yet"), "{}", told(16, 1));
    }

    #[test]
    fn what_was_mended_in_two_series_is_wrong_in_the_later_one_until_it_is_mended_there_too() {
        let has_it = |minor, patch| told(minor, patch).contains("out of bounds");
        let releases =
            [(12, 1), (13, 0), (13, 2), (14, 3), (14, 4), (14, 9), (15, 0), (15, 1), (16, 0), (17, 0)];
        let have_it = releases.map(|(minor, patch)| has_it(minor, patch));
        assert_eq!(have_it, [false, true, true, true, false, false, true, false, false, false]);
    }

    #[test]
    fn diffs_of_several_slots_are_misplaced_by_two_releases() {
        let releases = [(13, 2), (14, 0), (14, 1), (14, 2), (15, 0), (16, 1)];
        let misplace = releases.map(|(minor, patch)| v(minor, patch).misplaces_pages().is_some());
        assert_eq!(misplace, [false, true, true, false, false, false]);
    }
}

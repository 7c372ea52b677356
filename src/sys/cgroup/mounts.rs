//! The hierarchies of control groups that are mounted here, and which controllers each has.

use super::{CONTROLLERS, Version, read};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Which kind it is.
    pub version: Version,
    /// What it can limit, by the kernel's names.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// Whether it has the controller called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.controllers.iter().any(|own| own == name)
    }
}

/// Those that this process sees.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    Ok(parse(&String::from_utf8_lossy(&mounts), |root| read(root, CONTROLLERS).unwrap_or_default()))
}

/// The cgroups that the process is in that has the number `pid` now: one in each hierarchy that this process sees.
///
/// # Errors
/// When there is no such process, or `/proc` cannot be read.
pub fn cgroups_of(pid: i32) -> io::Result<Vec<PathBuf>> {
    let listed = fs::read(format!("/proc/{pid}/cgroup"))?;
    Ok(places(&String::from_utf8_lossy(&listed), &hierarchies()?))
}

/// By `/proc/<pid>/cgroup`: lines with a number, the controllers, and the path from the root of their hierarchy.
fn places(listed: &str, hierarchies: &[Hierarchy]) -> Vec<PathBuf> {
    let place = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it = |one: &&Hierarchy| match one.version {
            Version::One => controllers.split(',').any(|name| one.has(name)),
            Version::Two => controllers.is_empty(),
        };
        Some(hierarchies.iter().find(is_it)?.root.join(path.trim_start_matches('/')))
    };
    listed.lines().filter_map(place).collect()
}

/// By `/proc/<pid>/mountinfo`. Of version 2, `controllers_at` tells the controllers.
fn parse(mounts: &str, controllers_at: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found = Vec::<Hierarchy>::new();
    for line in mounts.lines() {
        let Some((mount, system)) = line.split_once(" - ") else { continue };
        let (mut system, root) = (system.split(' '), mount.split(' ').nth(4).unwrap_or_default());
        let (root, kind, options) = (unescaped(root), system.next(), system.nth(1).unwrap_or_default());
        let names = |text: &str, separator: char| text.split(separator).map(str::to_owned).collect();
        let (version, controllers) = match kind {
            // Beside controllers there are options in that list, which have no such names.
            Some("cgroup") => (Version::One, names(options, ',')),
            Some("cgroup2") => (Version::Two, names(&controllers_at(&root), ' ')),
            _ => continue,
        };
        // A second mount of the same hierarchy.
        if found.iter().all(|other| other.version != version || other.controllers != controllers) {
            found.push(Hierarchy { root, version, controllers });
        }
    }
    found
}

/// The kernel writes spaces and the like as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, left) = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', left @ ..]) => {
                (((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), left)
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "23 22 0:22 / /sys rw - sysfs sysfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/a\\040b rw - cgroup2 cgroup2 rw\n\
        42 31 0:38 / /mnt/again rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn both_kinds_of_hierarchies_are_found_with_their_controllers() {
        let found = parse(HYBRID, |_| "hugetlb io".to_owned());
        let [both, systemd, unified] = found.as_slice() else { panic!("{found:?}") };
        assert!(both.has("cpu") && both.has("cpuacct") && !both.has("io") && !systemd.has("cpu"));
        assert_eq!(
            (both.root.as_path(), both.version),
            (Path::new("/sys/fs/cgroup/cpu,cpuacct"), Version::One)
        );
        assert_eq!(
            (unified.root.as_path(), unified.version),
            (Path::new("/sys/fs/cgroup/a b"), Version::Two)
        );
        assert!(unified.has("hugetlb") && unified.has("io"));
        let listed = "9:name=systemd:/a.slice\n2:cpu,cpuacct:/x/y:z\n0::/a.slice/b\n5:memory:/elsewhere\n";
        let places = [
            "/sys/fs/cgroup/systemd/a.slice",
            "/sys/fs/cgroup/cpu,cpuacct/x/y:z",
            "/sys/fs/cgroup/a b/a.slice/b",
        ];
        assert_eq!(super::places(listed, &found), places.map(PathBuf::from));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*", fields in "[ -~\n]{0,200}") {
            let _any = (parse(&text, |_| text.clone()), parse(&format!("1 {fields} - cgroup {fields}"), |_| String::new()));
        }
    }
}

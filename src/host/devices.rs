//! The device files through which a host lends a VM what it has: whether this process may use them, and what to do when it
//! may not. Opening them changes nothing; the TUN device is not even opened, because that may load its driver.

use super::cpu;
use crate::sys::user;
use crate::sys::userfault::Userfault;
use crate::sys::{access, kvm};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use thiserror::Error;

/// A device that VMMs open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Virtualization.
    Kvm,
    /// Page faults served by another process.
    Userfault,
    /// Network interfaces.
    Tun,
}

/// A device that this process may not use.
#[derive(Debug, Error)]
#[error("cannot use {}", device.path().display())]
pub struct DeviceError {
    device: Device,
    source: io::Error,
}

impl Device {
    /// Where it is.
    pub fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Kvm => "/dev/kvm",
            Self::Userfault => "/dev/userfaultfd",
            Self::Tun => "/dev/net/tun",
        })
    }

    /// What to do when a VMM was refused it.
    pub(crate) fn advice(self) -> String {
        let other_user = || {
            let path = self.path().display();
            format!("let the VMM's user read and write {path}, as this process may")
        };
        self.check().err().map_or_else(other_user, |error| error.advice())
    }

    /// Whether a process like this one may use it.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(self) -> Result<(), DeviceError> {
        self.probe().map_err(|source| DeviceError { device: self, source })
    }

    fn probe(self) -> io::Result<()> {
        match (self, self.path().metadata()) {
            // Firecracker, too, makes the system call only where there is no device.
            (Self::Userfault, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Userfault::by_system_call().map(drop)
            }
            (Self::Tun, about) => about
                .and_then(|about| self.check_kind(&about))
                .and_then(|()| access::may_read_and_write(self.path())),
            (Self::Kvm, about) => {
                about.and_then(|about| self.open(&about)).and_then(|kvm| match kvm::api_version(&kvm)? {
                    USUAL_API => Ok(()),
                    other => {
                        Err(io::Error::other(format!("its API has version {other} instead of {USUAL_API}")))
                    }
                })
            }
            (Self::Userfault, about) => about.and_then(|about| self.open(&about)).map(drop),
        }
    }

    fn open(self, about: &Metadata) -> io::Result<File> {
        self.check_kind(about)?;
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(self.path())
    }

    fn check_kind(self, about: &Metadata) -> io::Result<()> {
        let is_device = about.file_type().is_char_device();
        is_device
            .then_some(())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not a device"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Userfault => "userfaultfd",
            Self::Tun => "tun",
        }
    }
}

impl DeviceError {
    /// What to do about it.
    pub fn advice(&self) -> String {
        let path = self.device.path().display();
        let in_container = format!("in a container, pass the device to it (docker run --device {path})");
        match (self.source.raw_os_error(), self.device) {
            (Some(libc::EPERM), Device::Userfault) if !self.device.path().exists() => {
                "set the sysctl vm.unprivileged_userfaultfd to 1, or give the VMM CAP_SYS_PTRACE; from Linux 6.1 on, access \
                 to /dev/userfaultfd is enough"
                    .to_owned()
            }
            (Some(libc::EACCES), _) => self.advice_on_access(),
            (Some(libc::EPERM), _) => format!("the device is not allowed in this cgroup: {in_container}"),
            (_, Device::Kvm) if cpu::virtualizes() == Some(false) => {
                "this CPU offers no virtualization: switch it on in the firmware, or, for a virtual machine, nested virtualization"
                    .to_owned()
            }
            (_, Device::Kvm) => format!("load the kernel module kvm_intel or kvm_amd; {in_container}"),
            (_, Device::Tun) => format!("load the kernel module tun; {in_container}"),
            (_, Device::Userfault) => "use a kernel with CONFIG_USERFAULTFD".to_owned(),
        }
    }

    /// The error of the system.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    fn advice_on_access(&self) -> String {
        const OF_GROUP: u32 = 0o060;
        let (path, name, user) = (self.device.path(), self.device.name(), user::effective_user());
        // A TUN device gives nobody anything that he may not have anyway.
        let rule = match self.device {
            Device::Tun => "MODE=\"0666\"",
            _ => "GROUP=\"kvm\", MODE=\"0660\"",
        };
        let shown = path.display();
        let group =
            fs::metadata(path).ok().filter(|about| about.mode() & OF_GROUP == OF_GROUP && about.gid() != 0);
        match group.map(|about| about.gid()) {
            Some(group) if user::is_listed_in(group) => format!(
                "user {user} is in group {}, but was not when this process was started: restart the service, or log in again",
                user::group_name(group)
            ),
            Some(group) => {
                let (group, number) = (user::group_name(group), group);
                format!(
                    "add user {user} to group {group} and restart the process (in a container: --group-add {number}), or run \
                     `setfacl -m u:{user}:rw {shown}` as root"
                )
            }
            None => format!(
                "run `setfacl -m u:{user}:rw {shown}` as root; to keep it over reboots, let a group have it by \
                 a udev rule: KERNEL==\"{name}\", {rule}"
            ),
        }
    }
}

const USUAL_API: i32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(device: Device, errno: i32) -> String {
        DeviceError { device, source: io::Error::from_raw_os_error(errno) }.advice()
    }

    #[test]
    fn every_way_not_to_have_a_device_has_its_own_advice() {
        for device in [Device::Kvm, Device::Userfault, Device::Tun] {
            let [absent, denied, forbidden] =
                [libc::ENOENT, libc::EACCES, libc::EPERM].map(|errno| advice(device, errno));
            assert!(absent != denied && denied != forbidden && forbidden != absent, "{device:?}");
            let path = device.path().display().to_string();
            assert!(denied.contains(&path) || denied.contains("group"), "{denied}");
        }
    }

    #[test]
    fn what_stands_there_is_a_device_or_is_refused() {
        let file = std::env::current_exe().unwrap().metadata().unwrap();
        assert!(Device::Kvm.open(&file).is_err() && Device::Tun.check_kind(&file).is_err());
    }
}

//! What to do when Firecracker was refused something of the host's, which it says in words of its own.

use crate::host::Device;

/// What to do about the refusal `fault`, where that is known.
pub(super) fn advice_on(fault: &str) -> Option<String> {
    let has = |words: &str| fault.contains(words);
    let is_denied = has("(os error 13)") || has("(os error 1)");
    match () {
        () if has("KVM object") || has("/dev/kvm") => Some(Device::Kvm.advice()),
        () if has("UFFD object") || has("/dev/userfaultfd") => Some(Device::Userfault.advice()),
        () if has("/dev/net/tun") => Some(Device::Tun.advice()),
        () if has("create VM") && has("(os error 16)") => {
            Some("end the other hypervisor, such as VirtualBox, that uses the CPU".to_owned())
        }
        () if is_denied && has("tap device") => Some(
            "to use a TAP device that is there, a VMM must be its user (ip tuntap add NAME mode tap user UID); to create one, it needs \
             CAP_NET_ADMIN"
                .to_owned(),
        ),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_device_is_advised_on_by_name() {
        for (fault, wanted) in [
            (
                "Start microvm error: Kvm error: Error creating KVM object: Permission denied (os error 13) Make sure the user \
                 launching the firecracker process is \\\nconfigured on the /dev/kvm file's ACL.",
                "/dev/kvm",
            ),
            (
                "Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from \
                 uffd: Failed to UFFD object: Error accessing /dev/userfaultfd: Permission denied (os error 13)",
                "userfaultfd",
            ),
            (
                "Network config error: Could not create the network device: Open tap device failed: Couldn't open /dev/net/tun: \
                 Permission denied (os error 13)",
                "/dev/net/tun",
            ),
            (
                "Could not create the network device: Open tap device failed: Error while creating ifreq structure: Operation not \
                 permitted (os error 1)",
                "CAP_NET_ADMIN",
            ),
        ] {
            let advice = advice_on(fault).unwrap();
            assert!(advice.contains(wanted), "{advice}");
        }
    }

    #[test]
    fn what_has_nothing_to_do_with_rights_gets_no_advice() {
        for fault in [
            "",
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ] {
            assert_eq!(advice_on(fault), None, "{fault}");
        }
    }
}

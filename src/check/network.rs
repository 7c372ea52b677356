//! Network interfaces and firewalls: what this process may make, and what the kernel forwards.

use super::Purpose::Network;
use super::Status::{Limited, No};
use super::{Finding, number, read};
use crate::json::object;
use crate::sys::user;

pub(super) fn look() -> Vec<Finding> {
    let forwarding = [
        ("ip_forward_v4", "IPv4", "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("ip_forward_v6", "IPv6", "net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ];
    let mut findings = vec![administration(), nftables()];
    findings.extend(forwarding.map(|(name, protocol, sysctl, path)| {
        let value = number(path);
        let finding = Finding::yes(name, Network, format!("the kernel forwards {protocol}"))
            .seeing(object! { "value": value });
        match value {
            Some(0) => finding
                .reading(format!("the kernel does not forward {protocol}"))
                .but(Limited, format!("for guests that reach other hosts: sysctl {sysctl}=1")),
            None => finding
                .reading(format!("the kernel has no {protocol}"))
                .but(Limited, format!("for guests that use {protocol}, use a kernel that has it")),
            Some(_) => finding,
        }
    }));
    findings
}

/// Whether the kernel has nf_tables is seen, and not asked: to ask would load it.
fn nftables() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let lists = ["modules.builtin", "modules.dep"].map(|name| read(format!("/lib/modules/{release}/{name}")));
    let is_there = read("/proc/modules").is_ok_and(|loaded| loaded.contains("nf_tables "));
    let is_listed = lists.iter().flatten().any(|list| list.contains("/nf_tables.ko"));
    if is_there || is_listed {
        return Finding::yes("nftables", Network, "the kernel has nf_tables");
    }
    Finding::yes("nftables", Network, "the kernel does not show whether it has nf_tables, as part of it or as a module")
        .but(Limited, "for firewalls, use a kernel with CONFIG_NF_TABLES; `nft list tables` as root shows whether it has it")
}

/// To make TAP devices and firewall rules.
fn administration() -> Finding {
    let advice = "run with CAP_NET_ADMIN (systemd: AmbientCapabilities=), or have root make the TAP devices for this user: ip tuntap \
                  add NAME mode tap user USER";
    match user::missing_capabilities(&user::NEEDED_BY_NETWORKS).is_empty() {
        true => Finding::yes("net_admin", Network, "this process may make TAP devices and firewall rules"),
        false => Finding::yes(
            "net_admin",
            Network,
            "this process may not make TAP devices and firewall rules: it lacks CAP_NET_ADMIN",
        )
        .but(No, advice),
    }
}

//! What a restored guest can tell itself from its siblings by: all of them remember the same past.

use crate::json::object;
use crate::snapshot::Manifest;
use crate::sys::random;
use serde_json::Value;
use std::io;

/// Random, and new with every restore.
#[derive(Debug)]
pub(crate) struct GuestIdentity {
    random: [u8; 16],
    generation_id: String,
}

impl GuestIdentity {
    /// A new one.
    pub(crate) fn new() -> io::Result<Self> {
        let mut random = random::bytes::<16>()?;
        // Version 4, variant 1: what others read as a random UUID.
        random[6] = random[6] & 0x0F | 0x40;
        random[8] = random[8] & 0x3F | 0x80;
        let hex = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts = [hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)];
        let generation_id = parts.map(Option::unwrap_or_default).join("-");
        Ok(Self { random, generation_id })
    }

    /// The id, a UUID.
    pub(crate) fn generation_id(&self) -> &str {
        &self.generation_id
    }

    /// What the guest finds in its metadata. An interface without a chosen address gets one that is its own.
    pub(crate) fn document(&self, manifest: &Manifest, chosen: &[(&str, &str)]) -> Value {
        let interfaces = manifest.interfaces().into_iter().enumerate().map(|(index, iface_id)| {
            let mac = chosen.iter().find(|(id, _)| *id == iface_id).map(|(_, mac)| (*mac).to_owned());
            let mac = mac.unwrap_or_else(|| self.mac(index));
            object! { "iface_id": iface_id, "mac": mac }
        });
        object! {
            "generation_id": self.generation_id(),
            "snapshot_id": manifest.id.as_str(),
            "network-interfaces": interfaces.collect::<Vec<_>>(),
        }
    }

    /// Locally administered, unicast.
    fn mac(&self, index: usize) -> String {
        let [a, b, c, d, e, ..] = self.random;
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{:02x}", e ^ index)
    }
}

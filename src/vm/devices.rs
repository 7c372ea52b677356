//! Devices that change while the guest runs: balloon, memory, drives, network interfaces.
//!
//! Each is a request that the VMM carries out at once; where the guest has to follow, as with memory, the call waits
//! until it has, asking the VMM every so often, for nothing tells.

use super::sharing::HostUse;
use super::spec::{Put, Surroundings};
use super::{Error, Reason, State, Turn, Vm};
use crate::causes::with_causes;
use crate::firecracker::api::Adjustment;
use crate::firecracker::{ConfigSection, Feature, Request};
use crate::journal::WhyNoParent;
use crate::json;
use crate::operation::Operation;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::poll;
use crate::sys::sync::lock;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// A device that can be plugged in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A block device.
    Drive,
    /// Persistent memory.
    Pmem,
    /// A network interface.
    NetworkInterface,
}

impl Device {
    /// The device whose section in a spec is called `section`.
    pub fn of_section(section: &str) -> Option<Self> {
        let section = ConfigSection::named(section)?;
        [Self::Drive, Self::Pmem, Self::NetworkInterface]
            .into_iter()
            .find(|device| device.section() == section)
    }

    fn section(self) -> ConfigSection {
        match self {
            Self::Drive => ConfigSection::Drives,
            Self::Pmem => ConfigSection::Pmem,
            Self::NetworkInterface => ConfigSection::NetworkInterfaces,
        }
    }
}

/// Whether a VMM has taken what it was told.
enum Taken {
    No,
    Perhaps,
}

/// Between two looks at what a guest has done.
const PACE: Duration = Duration::from_millis(20);

impl Vm {
    /// Has the guest give `amount_mib` to the balloon, or take back what is more, and waits up to `patience` until it
    /// has. Says what the balloon holds then; nothing when its statistics are off, and nobody can know.
    ///
    /// # Errors
    /// When there is no balloon, or the guest has not followed in time; it may still.
    pub fn set_balloon(&self, amount_mib: u64, patience: Duration) -> Result<Option<u64>, Error> {
        const OPERATION: Operation = Operation::SetBalloon;
        let adjustment = Adjustment::balloon(amount_mib);
        match self.set_and_follow(OPERATION, &adjustment, (amount_mib, patience)) {
            // The balloon is set, and tells nothing.
            Err(error) if error.is_refusal_of(&adjustment.show) => Ok(None),
            followed => followed.map(Some),
        }
    }

    /// What the guest says of its memory, as JSON.
    ///
    /// # Errors
    /// When there is no balloon, or its statistics are off.
    pub fn balloon_statistics(&self) -> Result<Value, Error> {
        const OPERATION: Operation = Operation::BalloonStatistics;
        let mut turn = self.begin_on_guest(OPERATION)?;
        self.ask_json(&Request::balloon_statistics(), &mut turn)
    }

    /// Plugs memory in or out until `size_mib` of the hotpluggable memory are plugged in, and waits up to `patience`
    /// until the guest has followed. Says how much is plugged in then.
    ///
    /// # Errors
    /// When there is no such memory, or the guest has not followed in time; it may still.
    pub fn set_hotplugged_memory(&self, size_mib: u64, patience: Duration) -> Result<u64, Error> {
        const OPERATION: Operation = Operation::HotplugMemory;
        self.set_and_follow(OPERATION, &Adjustment::hotplugged_memory(size_mib), (size_mib, patience))
    }

    /// Gives a drive another file, another rate limit, or both; a drive whose file has grown is given the same one.
    ///
    /// # Errors
    /// When there is no such drive or file; the drive is what it was then.
    pub fn update_drive(
        &self,
        drive_id: &str,
        path_on_host: Option<&Path>,
        rate_limiter: Option<Value>,
    ) -> Result<(), Error> {
        const OPERATION: Operation = Operation::UpdateDrive;
        let mut turn = self.begin_on_guest(OPERATION)?;
        let mut change = Map::new();
        change.extend(rate_limiter.map(|limiter| ("rate_limiter".to_owned(), limiter)));
        match path_on_host {
            None => self.patch_device((Device::Drive, drive_id), change, &mut turn),
            Some(path) => {
                // A link would lead elsewhere than the caller's working directory.
                let path = std::path::absolute(path).map_err(|source| {
                    let path = path.to_path_buf();
                    self.error(OPERATION, Reason::File { action: "find the disk", path, source })
                })?;
                self.exchange_drive((drive_id, &path), change, &mut turn)
            }
        }
    }

    /// Limits the rates of a network interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn update_network_interface(
        &self,
        iface_id: &str,
        rx_rate_limiter: Option<Value>,
        tx_rate_limiter: Option<Value>,
    ) -> Result<(), Error> {
        const OPERATION: Operation = Operation::UpdateNetwork;
        let mut turn = self.begin_on_guest(OPERATION)?;
        let mut change = Map::new();
        change.extend(rx_rate_limiter.map(|limiter| ("rx_rate_limiter".to_owned(), limiter)));
        change.extend(tx_rate_limiter.map(|limiter| ("tx_rate_limiter".to_owned(), limiter)));
        self.patch_device((Device::NetworkInterface, iface_id), change, &mut turn)
    }

    /// Plugs a device into the VM, whose guest has to look for it. `definition` is what its section in a spec would
    /// hold; relative paths are relative to `base`.
    ///
    /// # Errors
    /// When this Firecracker cannot do that, or refuses it.
    pub fn attach(&self, device: Device, definition: Value, base: &Path) -> Result<(), Error> {
        const OPERATION: Operation = Operation::AttachDevice;
        let mut turn = self.begin_hotplug(OPERATION)?;
        let surroundings = Surroundings { base, is_jailed: self.spec.options.jail.is_some() };
        let Put { request: plug, links, uses, .. } =
            Put::of_device(device.section(), definition, surroundings)
                .map_err(|problem| self.error(OPERATION, problem))?;
        let former = self.shared.holdings.hold_more(self.token, &uses).map_err(self.failed(OPERATION))?;
        let (view, mut exposed) = (self.view(), Vec::new());
        let all_exposed = links.iter().try_for_each(|link| {
            view.expose(&link.target, &link.name).map_err(|source| {
                let path = link.target.clone();
                self.error(OPERATION, Reason::File { action: "link the disk", path, source })
            })?;
            exposed.push(&link.name);
            self.lend_more(&link.name, &turn)
        });
        let plugged = all_exposed.and_then(|()| self.demand(&plug, &mut turn));
        if plugged.is_err() {
            self.shared.holdings.give_back(self.token, former);
            exposed.into_iter().for_each(|name| view.conceal(name));
        }
        plugged.map(drop)
    }

    /// Plugs a device out, which the guest has let go of before.
    ///
    /// # Errors
    /// When there is none, or this Firecracker cannot do that.
    pub fn detach(&self, device: Device, id: &str) -> Result<(), Error> {
        const OPERATION: Operation = Operation::DetachDevice;
        let mut turn = self.begin_hotplug(OPERATION)?;
        let name = device.section().file_name(id);
        self.check_not_kept(&name, &turn)?;
        self.demand(&Request::remove_device(device.section(), id), &mut turn)?;
        self.shared.holdings.release_link(self.token, &name);
        self.view().conceal(&name);
        Ok(())
    }

    /// Gives it another file for a drive, under the name by which the VMM knows it.
    pub(super) fn exchange_drive(
        &self,
        (drive_id, target): (&str, &Path),
        change: Map<String, Value>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let operation = turn.operation();
        let name = ConfigSection::Drives.file_name(drive_id);
        self.check_not_kept(&name, turn)?;
        let exchange = Request::exchange_drive(drive_id, name.as_path(), change);
        let used = self.spec.uses().iter().find(|used| used.link.as_ref() == Some(&name)).cloned();
        let used = used.or_else(|| self.shared.holdings.by_link(self.token, &name));
        let used = used.map(|used| HostUse { name: target.to_path_buf(), ..used });
        let failed = |source| {
            let path = target.to_path_buf();
            self.error(operation, Reason::File { action: "link the disk", path, source })
        };
        std::fs::metadata(target).map_err(failed)?;
        let former = self.shared.holdings.hold_more(self.token, used.as_slice());
        let former = former.map_err(self.failed(operation))?;
        let replaced = match self.view().replace(target, &name) {
            Ok(replaced) => replaced,
            Err(source) => {
                self.shared.holdings.give_back(self.token, former);
                return Err(failed(source));
            }
        };
        let exchanged = self.lend_more(&name, turn).map_err(|error| (error, Taken::No)).and_then(|()| {
            let answer = self.demand(&exchange, turn);
            answer.map_err(|error| {
                let taken = if error.is_refusal() { Taken::No } else { Taken::Perhaps };
                (error, taken)
            })
        });
        match exchanged {
            Err((error, Taken::No)) => {
                self.shared.holdings.give_back(self.token, former);
                replaced.take_back();
                // The VMM has its former file open; it is to find it again too.
                self.lend_more(&name, turn).unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
                Err(error)
            }
            // Without an answer the VMM may have taken it.
            changed => {
                replaced.keep();
                changed.map(drop).map_err(|(error, _)| error)
            }
        }
    }

    /// The turn for an operation that needs a guest.
    fn begin_on_guest(&self, operation: Operation) -> Result<Turn<'_>, Error> {
        let turn = self.begin(operation, self.spec.options.deadlines.request())?;
        let state = self.state();
        match state {
            State::Running | State::Paused => Ok(turn),
            _ => Err(self.wrong_state(operation, state, Some("start it first"))),
        }
    }

    fn begin_hotplug(&self, operation: Operation) -> Result<Turn<'_>, Error> {
        let turn = self.begin_on_guest(operation)?;
        let version = lock(&self.core).version;
        let able = version.map_or(Ok(()), |version| version.require(Feature::DeviceHotplug));
        able.map_err(self.failed(operation)).map(|()| turn)
    }

    /// Makes the adjustment, and waits until what it shows is `wanted`.
    fn set_and_follow(
        &self,
        operation: Operation,
        adjustment: &Adjustment,
        (wanted, patience): (u64, Duration),
    ) -> Result<u64, Error> {
        let mut turn = self.begin_on_guest(operation)?;
        if adjustment.set.may_change_what_a_diff_holds() {
            self.forget_last_snapshot(WhyNoParent::MemoryPlugged, &mut turn)?;
        }
        self.demand(&adjustment.set, &mut turn)?;
        let until = Deadline::after(patience);
        loop {
            let shown = self.ask_json(&adjustment.show, &mut turn)?;
            let now = shown.get(adjustment.key).and_then(Value::as_u64).unwrap_or_default();
            if now == wanted || patience.is_zero() {
                return Ok(now);
            }
            if until.has_passed() {
                return Err(self.error(operation, Reason::NotFollowed { wanted, now, after: patience }));
            }
            self.nap(operation, until, turn.interrupted())?;
        }
    }

    fn nap(&self, operation: Operation, until: Deadline, limits: Limits<'_>) -> Result<(), Error> {
        let woken = poll::wait([limits.interest()], until.or_sooner(Deadline::after(PACE)));
        if woken.is_ok_and(|[interrupted]| interrupted) {
            return Err(self.error(operation, super::NoTurn::Interrupted));
        }
        Ok(())
    }

    pub(super) fn ask_json(&self, request: &Request, turn: &mut Turn<'_>) -> Result<Value, Error> {
        let answer = self.demand(request, turn)?;
        json::parse(&answer.body).map_err(|_| self.unexpected(turn.operation(), request, &answer))
    }

    fn patch_device(
        &self,
        (device, id): (Device, &str),
        change: Map<String, Value>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        self.demand(&Request::update_device(device.section(), id, change), turn).map(drop)
    }
}

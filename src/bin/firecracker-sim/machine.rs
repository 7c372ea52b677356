//! The machine: not started, running or paused. It takes one action at a time, before its start and after it
//! under different rules, and says through a channel when the process has to end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Action, CreateSnapshotParams, LoadSnapshot, Outcome, SnapshotType};
use crate::error::{
    ActionError, ApiServerError, BalloonConfigError, BuildMicrovmError, ConfigurationError,
    CreateSnapshotError, DeviceManagerError, ElfError, KernelLoaderError, LoadSnapshotError, MainError,
    MemoryError, MicrovmStateError, StartMicrovmError, VmmError,
};
use crate::fault::{self, RequestFault};
use crate::guest::{Ending, Guest, GuestState, Serial, Stop};
use crate::kernel;
use crate::log::{self, Speaker};
use crate::memory::{GuestMemory, Layout, Room};
use crate::metrics;
use crate::proc;
use crate::release::{Manner, Release};
use crate::resources::{DEFAULT_COMMAND_LINE, Resources, open_pmem};
use crate::snapshot::{self, State};

/// How long a vCPU may keep a pause waiting, in a page fault that nobody serves.
const PAUSE_PATIENCE: Duration = Duration::from_secs(30);

mod devices;
mod handler;
mod restore;

/// Why the process ends.
#[derive(Debug)]
pub(crate) enum End {
    Guest(Ending),
    Failed(MainError),
    Signal {
        number: i32,
        code: i32,
    },
    /// Asked for on the command line.
    Fault(u8),
}

pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) pci_enabled: bool,
    resources: Resources,
    stage: Stage,
    ends: Sender<End>,
    /// After these nothing can be restored into this process any more.
    is_configured: bool,
    hinting: u32,
    requested_size_mib: usize,
    /// Those of the request at hand.
    pub(crate) faults: Vec<RequestFault>,
}

enum Stage {
    NotStarted,
    Running(Guest),
    Paused(Guest),
}

impl Machine {
    pub(crate) fn new(id: String, version: String, mmds_size_limit: usize, ends: Sender<End>) -> Self {
        let mut resources = Resources::default();
        resources.mmds.size_limit = mmds_size_limit;
        Self {
            id,
            version,
            pci_enabled: false,
            resources,
            stage: Stage::NotStarted,
            ends,
            is_configured: false,
            hinting: 0,
            requested_size_mib: 0,
            faults: Vec::new(),
        }
    }

    /// For a configuration that does not come by the API; it counts as none that was made before a snapshot.
    pub(crate) fn resources(&mut self) -> &mut Resources {
        &mut self.resources
    }

    pub(crate) fn handle(&mut self, action: Action) -> Outcome {
        match action {
            Action::FullConfig => return Ok(Some(self.full_config())),
            Action::InstanceInfo => return Ok(Some(self.instance_info())),
            Action::MachineConfig => return Ok(Some(json(&self.resources.machine))),
            Action::Version => return Ok(Some(json!({ "firecracker_version": self.version }).to_string())),
            _ => {}
        }
        match &self.stage {
            Stage::NotStarted => self.handle_before_start(action),
            Stage::Running(guest) | Stage::Paused(guest) => {
                let guest = guest.clone();
                self.handle_after_start(action, &guest)
            }
        }
    }

    /// Takes the configuration as it stands and starts the guest.
    pub(crate) fn start(&mut self) -> Result<(), StartMicrovmError> {
        let kernel = self.resources.boot_source.as_ref().ok_or(StartMicrovmError::MissingKernelConfig)?;
        let refused = |error| StartMicrovmError::CreateDeviceManager(DeviceManagerError::EventFd(error));
        let serial = self.open_serial().map_err(refused)?;
        let loaded = kernel::load(&kernel.kernel_image_path, self.resources.machine.mem_size_mib)
            .map_err(as_start_error)?;
        self.resources.pmem.iter().try_for_each(open_pmem).map_err(StartMicrovmError::CreatePmemDevice)?;
        let memory = self.fresh_memory().map_err(StartMicrovmError::GuestMemory)?;
        let command_line = kernel.boot_args.as_deref().unwrap_or(DEFAULT_COMMAND_LINE);
        loaded.put_into(&memory, command_line).map_err(as_start_error)?;
        let guest = self.launch(GuestState::at_start(loaded.script), Arc::new(memory), serial);
        log_resumption();
        guest.resume();
        self.stage = Stage::Running(guest);
        self.start_metrics();
        Ok(())
    }

    fn handle_before_start(&mut self, action: Action) -> Outcome {
        self.is_configured |= configures(&action);
        match action {
            Action::ConfigureBootSource(config) => self.resources.set_boot_source(config)?,
            Action::ConfigureLogger(config) => log::configure(config)?,
            Action::ConfigureMetrics(config) => metrics::configure(&config)?,
            Action::ConfigureSerial(config) => self.resources.set_serial(config),
            Action::BalloonConfig => {
                let balloon = self.resources.balloon.as_ref().ok_or(BalloonConfigError::DeviceNotFound)?;
                return Ok(Some(json(balloon)));
            }
            Action::Mmds => return Ok(Some(self.resources.mmds.to_json())),
            Action::InsertDrive(config) => self.resources.insert_drive(config)?,
            Action::InsertPmem(config) => self.resources.insert_pmem(config)?,
            Action::InsertNetworkInterface(config) => self.resources.insert_network_interface(config)?,
            Action::LoadSnapshot(request) => self.load_snapshot(&request)?,
            Action::PatchMmds(patch) => self.resources.mmds.patch(&patch)?,
            Action::PutMmds(contents) => self.resources.mmds.put(contents)?,
            Action::PutCpuConfig => self.resources.set_custom_cpu_template(),
            Action::SetBalloon(config) => {
                let has_hinting = config.free_page_hinting;
                self.resources.set_balloon(config)?;
                if has_hinting {
                    log_preview("Free Page Hinting");
                }
            }
            Action::SetEntropy(config) => self.resources.set_entropy(&config),
            Action::SetMemoryHotplug(config) => self.resources.set_memory_hotplug(config)?,
            Action::SetMmdsConfig(config) => self.resources.set_mmds_config(&config)?,
            Action::SetVsock(config) => self.resources.set_vsock(config)?,
            Action::StartMicroVm => self.start()?,
            Action::UpdateMachineConfig(update) => self.resources.update_machine(&update)?,
            _ => return Err(ActionError::OperationNotSupportedPreBoot),
        }
        Ok(None)
    }

    fn handle_after_start(&mut self, action: Action, guest: &Guest) -> Outcome {
        if self.faults.contains(&RequestFault::PageOut) {
            let _nothing_without_swap = guest.memory().page_out();
        }
        match action {
            Action::CreateSnapshot(request) => {
                self.check_diff(&request)?;
                self.create_snapshot(&request, guest)?;
            }
            Action::FlushMetrics => {
                metrics::flush().map_err(|error| ActionError::InternalVmm(VmmError::Metrics(error)))?;
            }
            Action::Pause => self.pause(guest).map_err(ActionError::InternalVmm)?,
            Action::Resume => self.resume(guest),
            Action::SendCtrlAltDel => guest.press_ctrl_alt_del(),
            Action::Mmds => {
                self.check_mmds()?;
                return Ok(Some(self.resources.mmds.to_json()));
            }
            Action::PatchMmds(patch) => {
                self.check_mmds()?;
                self.resources.mmds.patch(&patch)?;
            }
            Action::PutMmds(contents) => {
                self.check_mmds()?;
                self.resources.mmds.put(contents)?;
            }
            action => return self.handle_device(action, guest),
        }
        Ok(None)
    }

    fn pause(&mut self, guest: &Guest) -> Result<(), VmmError> {
        let started = Instant::now();
        if guest.pause(PAUSE_PATIENCE) == Stop::NotYet {
            return Err(VmmError::VcpuMessage);
        }
        self.stage = Stage::Paused(guest.clone());
        let micros = metrics::store_elapsed("vmm_pause_vm", started.elapsed());
        let line = format!("'pause vm' VMM action took {micros} us.");
        log::info(Speaker::Main, "src/vmm/src/rpc_interface.rs:893", &line);
        Ok(())
    }

    fn resume(&mut self, guest: &Guest) {
        let started = Instant::now();
        match self.stage {
            Stage::Paused(_) => log_resumption(),
            _ => log_kick(),
        }
        guest.resume();
        self.stage = Stage::Running(guest.clone());
        let micros = metrics::store_elapsed("vmm_resume_vm", started.elapsed());
        let line = format!("'resume vm' VMM action took {micros} us.");
        log::info(Speaker::Main, "src/vmm/src/rpc_interface.rs:906", &line);
    }

    /// Old releases made no diff without dirty page tracking.
    fn check_diff(&self, request: &CreateSnapshotParams) -> Result<(), ActionError> {
        let is_possible = request.snapshot_type == SnapshotType::Full
            || self.resources.machine.track_dirty_pages
            || Release::told().untracked_diff() == Manner::New;
        if is_possible { Ok(()) } else { Err(ActionError::UntrackedDiff) }
    }

    fn create_snapshot(
        &mut self,
        request: &CreateSnapshotParams,
        guest: &Guest,
    ) -> Result<(), CreateSnapshotError> {
        let started = Instant::now();
        if request.snapshot_type == SnapshotType::Diff {
            log_preview("Virtual machine diff snapshots");
        }
        if matches!(self.stage, Stage::Running(_)) {
            let reason = "save/restore unavailable while running";
            return Err(CreateSnapshotError::MicrovmState(MicrovmStateError::NotAllowed(reason)));
        }
        let state = State {
            config: self.resources.to_config(),
            guest: guest.state(),
            cpu_vendor: proc::look().cpu_vendor.clone(),
            requested_size_mib: self.requested_size_mib,
        };
        let crashes = self.faults.contains(&RequestFault::CrashHalfway);
        let is_short = crashes || self.faults.contains(&RequestFault::NoSpace);
        let room = if is_short { Room::ForHalf } else { Room::Enough };
        let written = snapshot::write(request, &state, guest.memory(), room);
        if crashes {
            fault::crash();
        }
        written?;
        if self.faults.contains(&RequestFault::SyncFails) {
            let source = io::Error::from_raw_os_error(libc::EIO);
            return Err(CreateSnapshotError::MemoryBackingFile("sync_all", source));
        }
        let (words, field) = match request.snapshot_type {
            SnapshotType::Full => ("full", "vmm_full_create_snapshot"),
            SnapshotType::Diff => ("diff", "vmm_diff_create_snapshot"),
        };
        let micros = metrics::store_elapsed(field, started.elapsed());
        let line = format!("'create {words} snapshot' VMM action took {micros} us.");
        log::info(Speaker::Main, "src/vmm/src/rpc_interface.rs:960", &line);
        Ok(())
    }

    fn load_snapshot(&mut self, request: &LoadSnapshot) -> Result<(), LoadSnapshotError> {
        let started = Instant::now();
        if self.is_configured {
            let error = LoadSnapshotError::LoadSnapshotNotAllowed;
            log::info(Speaker::Main, "src/vmm/src/rpc_interface.rs:652", &error.to_string());
            return Err(error);
        }
        let restored = match self.restore(request) {
            Ok(restored) => restored,
            Err(error) => {
                // Firecracker takes the process for too dirty to go on with.
                let failure = ApiServerError::BuildMicroVmError(BuildMicrovmError::Restore);
                self.end(End::Failed(MainError::RunWithApi(failure)));
                return Err(error.into());
            }
        };
        let guest = self.launch(restored.guest, restored.memory, restored.serial);
        self.stage = if request.resume_vm {
            log_resumption();
            guest.resume();
            Stage::Running(guest)
        } else {
            Stage::Paused(guest)
        };
        metrics::store_elapsed("vmm_load_snapshot", started.elapsed());
        self.start_metrics();
        Ok(())
    }

    fn fresh_memory(&self) -> Result<GuestMemory, MemoryError> {
        let layout = Layout::of(&self.resources.machine, self.resources.memory_hotplug.as_ref());
        GuestMemory::new(&layout).map_err(MemoryError::MmapRegion)
    }

    /// The guest's thread ends with the process, or ends it.
    fn launch(&self, state: GuestState, memory: Arc<GuestMemory>, serial: Serial) -> Guest {
        let guest = Guest::new(state, memory);
        let (runner, ends) = (guest.clone(), self.ends.clone());
        let spawned = thread::Builder::new().name("fc_vcpu 0".to_owned()).spawn(move || {
            let _ = ends.send(End::Guest(runner.run(serial)));
        });
        if let Err(error) = spawned {
            self.end(End::Failed(MainError::Simulator(error)));
        }
        guest
    }

    /// The first line comes with the start, and the periods begin there.
    fn start_metrics(&self) {
        if let Err(error) = metrics::write_periodically(flush_metrics) {
            self.end(End::Failed(MainError::Simulator(error)));
        }
        flush_metrics();
    }

    fn end(&self, end: End) {
        // Nobody receives any more when the process is ending already.
        let _ = self.ends.send(end);
    }

    fn open_serial(&self) -> io::Result<Serial> {
        let Some(path) = &self.resources.serial_out_path else { return Ok(Serial::Stdout) };
        log::open_without_blocking(path).map(Serial::File)
    }

    fn check_mmds(&self) -> Result<(), ActionError> {
        if self.resources.serves_mmds() {
            return Ok(());
        }
        Err(ActionError::Mmds(crate::error::MmdsDatastoreError::NotInitialized))
    }

    fn full_config(&self) -> String {
        if matches!(self.stage, Stage::NotStarted) {
            let line = "If the VM was restored from snapshot, boot-source, machine-config.smt, and \
                        machine-config.cpu_template will all be empty.";
            log::warn(Speaker::Main, "src/vmm/src/rpc_interface.rs:449", line);
        }
        json(&self.resources.to_config())
    }

    fn instance_info(&self) -> String {
        let state = match self.stage {
            Stage::NotStarted => "Not started",
            Stage::Running(_) => "Running",
            Stage::Paused(_) => "Paused",
        };
        let (id, version) = (Value::from(self.id.as_str()), Value::from(self.version.as_str()));
        format!(r#"{{"id":{id},"state":"{state}","vmm_version":{version},"app_name":"Firecracker"}}"#)
    }
}

fn as_start_error(error: ElfError) -> StartMicrovmError {
    StartMicrovmError::ConfigureSystem(ConfigurationError::KernelLoader(KernelLoaderError::Elf(error)))
}

/// Writes the metrics where nobody can be told of a failure but the log.
pub(crate) fn flush_metrics() {
    if let Err(error) = metrics::flush() {
        metrics::count("logger", "missed_metrics_count");
        let line = format!("Failed to write metrics: {error}");
        log::error(Speaker::Main, "src/firecracker/src/metrics.rs:48", &line);
    }
}

fn configures(action: &Action) -> bool {
    matches!(
        action,
        Action::ConfigureBootSource(_)
            | Action::InsertDrive(_)
            | Action::InsertPmem(_)
            | Action::InsertNetworkInterface(_)
            | Action::SetBalloon(_)
            | Action::SetEntropy(_)
            | Action::SetMemoryHotplug(_)
            | Action::SetMmdsConfig(_)
            | Action::SetVsock(_)
            | Action::UpdateMachineConfig(_)
    )
}

fn log_kick() {
    log::info(Speaker::Main, "src/vmm/src/device_manager/mod.rs:375", "Artificially kick devices");
}

fn log_resumption() {
    log_kick();
    let line = "Received a VcpuEvent::Resume message with immediate_exit enabled. immediate_exit was \
                disabled before proceeding";
    log::warn(Speaker::Vcpu, "src/vmm/src/vstate/vcpu.rs:302", line);
}

/// Once for each use, as Firecracker has it.
pub(crate) fn log_preview(feature: &str) {
    let line = format!("[DevPreview] {feature} is in development preview.");
    log::warn(Speaker::Main, "src/vmm/src/logger/mod.rs:33", &line);
}

/// Configurations have no maps with other keys than strings, the only thing that JSON cannot say.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

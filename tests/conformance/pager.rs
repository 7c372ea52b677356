//! The plainest server of page faults: each page from the memory file, those that were given back as zeros.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use mvm::sys::deadline::Deadline;
use mvm::sys::poll::{self, Interest};
use mvm::sys::socket::UnixConnection;
use mvm::sys::userfault::{CopyError, Event, Userfault};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(1);

/// Serves one VMM, until it is gone.
pub(crate) struct Pager(Receiver<String>);

struct Service {
    faults: Userfault,
    regions: Value,
    memory: File,
    given_back: Vec<Range<u64>>,
    /// Pages that could not be brought while others were given back.
    waiting: Vec<u64>,
}

impl Pager {
    pub(crate) fn start(path: &Path, memory: &Path) -> io::Result<Self> {
        let _former = fs::remove_file(path);
        let (listener, memory) = (UnixListener::bind(path)?, File::open(memory)?);
        let (sender, told) = channel();
        thread::spawn(move || {
            let listened = poll::wait([Interest::Readable(listener.as_fd())], Deadline::after(PATIENCE));
            if !listened.is_ok_and(|[has_come]| has_come) {
                return;
            }
            let Ok((stream, _)) = listener.accept() else { return };
            let connection = UnixConnection::from(stream);
            let mut buffer = [0; 4096];
            let Some((length, Some(faults))) = next_message(&connection, &mut buffer) else { return };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let regions = serde_json::from_str(&text).unwrap_or_default();
            let _ = sender.send(text);
            let Ok(faults) = Userfault::serving(faults) else { return };
            let _ended = Service { faults, regions, memory, given_back: Vec::new(), waiting: Vec::new() }
                .serve(&connection);
        });
        Ok(Self(told))
    }

    /// What the VMM said, once it has.
    pub(crate) fn told(&self) -> io::Result<String> {
        self.0.recv_timeout(PATIENCE).map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

/// Waits for it; nothing when none comes.
pub(crate) fn next_message(
    connection: &UnixConnection,
    buffer: &mut [u8],
) -> Option<(usize, Option<std::os::fd::OwnedFd>)> {
    poll::wait([Interest::Readable(connection.as_fd())], Deadline::after(PATIENCE)).ok()?;
    connection.receive_with_descriptor(buffer).ok()
}

impl Service {
    fn serve(mut self, connection: &UnixConnection) -> io::Result<()> {
        loop {
            let sources = [Interest::Readable(self.faults.as_fd()), Interest::Readable(connection.as_fd())];
            // Nothing tells when the giving back is over.
            let soon = if self.waiting.is_empty() { Deadline::NEVER } else { Deadline::after(GLANCE) };
            let [has_events, has_ended] = poll::wait(sources, soon)?;
            if has_ended {
                return Ok(());
            }
            let mut events = Vec::new();
            if has_events && self.faults.read(1, &mut events).is_ok() {
                events.into_iter().for_each(|event| self.take(event));
            }
            mem::take(&mut self.waiting).into_iter().for_each(|address| self.bring(address));
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Fault { address, .. } => self.bring(address),
            Event::Remove(addresses) => self.given_back.push(addresses),
            _ => {}
        }
    }

    /// Whoever waits for a page that is there already, or that cannot be brought, waits for ever: the test will say.
    fn bring(&mut self, address: u64) {
        let number = |region: &Value, key: &str| region[key].as_u64().unwrap_or_default();
        for region in self.regions.clone().as_array().into_iter().flatten() {
            let (start, size) = (number(region, "base_host_virt_addr"), number(region, "size"));
            if !(start..start + size).contains(&address) {
                continue;
            }
            let length = number(region, "page_size");
            let page = address - (address - start) % length;
            let mut contents = vec![0; usize::try_from(length).unwrap_or_default()];
            if !self.given_back.iter().any(|addresses| addresses.contains(&page)) {
                let _read = self.memory.read_exact_at(&mut contents, page - start + number(region, "offset"));
            }
            if matches!(self.faults.copy(page, &contents), Err(CopyError::Again { .. })) {
                self.waiting.push(page);
            }
            return;
        }
    }
}

//! A pager from its start to its end: it waits for a VMM, serves it, and ends with it, one way or the other.

use super::ahead::Stream;
use super::figures::{Count, Counters, State};
use super::handshake::{self, Layout, Said, Senseless};
use super::image::Image;
use super::server::Server;
use super::{Ahead, PagerError, Plan, working_set};
use crate::causes::with_causes;
use crate::journal;
use crate::json::object;
use crate::process::{Identity, Limits, Process, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::mask::HeldSignals;
use crate::sys::pidfd::Signal;
use crate::sys::poll::{self, Interest};
use crate::sys::procfs;
use crate::sys::socket::{self, UnixConnection};
use crate::sys::sync::lock;
use crate::sys::userfault::Userfault;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// How long a VMM may take to come: it was not told to, then.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);
/// How long a VMM whose memory is gone may take to be gone itself.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
const STACK: usize = 256 * 1024;

/// Serves the VM of `directory` for `owner`: its VMM, once that connects to `listener`.
///
/// It ends when the VMM has ended, or before one has come, when the owner has, or after a minute. What goes wrong it
/// tells by `say`, before it ends the VMM: whoever sees that end finds the reason there.
///
/// # Errors
/// Whatever keeps it from serving. The VMM was ended then, if it had come.
pub fn serve(
    directory: &Path,
    owner: Identity,
    listener: &UnixListener,
    say: &dyn Fn(&str),
) -> Result<(), PagerError> {
    serve_until(directory, owner, listener, None, say)
}

/// The same until `stop` is raised; then the VMM ends too.
pub(super) fn serve_until(
    directory: &Path,
    owner: Identity,
    listener: &UnixListener,
    stop: Option<&EventFd>,
    say: &dyn Fn(&str),
) -> Result<(), PagerError> {
    let said = Cell::new(false);
    let figures = listener.set_nonblocking(true).and_then(|()| Counters::new(directory));
    let served = figures.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    let served =
        served.map_err(PagerError::system("create the file of the pager's counts")).and_then(|figures| {
            let life = Life { directory, listener, figures, stop, say, said: &said };
            let prepared = life.prepare()?;
            match life.await_vmm(owner, &prepared.plan)? {
                Some(arrived) => life.serve(&prepared, arrived),
                None => Ok(()),
            }
        });
    if let Ok(figures) = figures {
        figures.note_state(if served.is_ok() { State::Ended } else { State::Failed });
    }
    served.inspect_err(|error| {
        if !said.get() {
            say(&with_causes(error));
        }
        end_those_who_wait(directory, listener);
    })
}

struct Life<'a> {
    directory: &'a Path,
    listener: &'a UnixListener,
    figures: &'a Counters,
    stop: Option<&'a EventFd>,
    say: &'a dyn Fn(&str),
    said: &'a Cell<bool>,
}

/// What is known before a VMM comes.
struct Prepared {
    plan: Plan,
    image: Image,
    /// What is to be replayed.
    working_set: Vec<Range<u64>>,
}

/// A VMM, and what it wants served.
struct Arrived {
    vmm: Process,
    memory: (Layout, Userfault),
}

/// What the threads of a pager have to say to the one that watches over them.
struct Failure {
    first: Mutex<Option<PagerError>>,
    happened: EventFd,
}

impl Life<'_> {
    fn prepare(&self) -> Result<Prepared, PagerError> {
        self.figures.note_state(State::Waiting);
        let plan = Plan::read(self.directory)?;
        let image = Image::open(&plan.layers, plan.bytes)?;
        let named = plan.working_set.as_deref().filter(|_| plan.ahead != Ahead::Nothing);
        let working_set = named.map(|path| working_set::load(path, plan.bytes)).unwrap_or_default();
        Ok(Prepared { plan, image, working_set })
    }

    /// The VMM, once it has said what its memory is; nothing when there will be none.
    fn await_vmm(&self, owner: Identity, plan: &Plan) -> Result<Option<Arrived>, PagerError> {
        let owner = Process::find(owner).map_err(PagerError::Process)?;
        let patience = if owner.is_some() { FIRST_PATIENCE } else { Duration::ZERO };
        let deadline = Deadline::after(patience);
        loop {
            let owner_gone = owner.as_ref().map_or(Interest::Nothing, |it| Interest::Readable(it.pidfd()));
            let came = Interest::Readable(self.listener.as_fd());
            let woken = poll::wait([came, owner_gone, EventFd::interest(self.stop)], deadline);
            match woken.map_err(PagerError::system("wait for the VMM"))? {
                [_, _, true] => return Ok(None),
                // Before the owner is looked at: a VMM that has come is to outlive him.
                [true, ..] => {
                    if let Some(came) = self.receive_vmm(plan)? {
                        return Ok(Some(came));
                    }
                }
                [_, true, _] => return Ok(None),
                [false, false, false] if owner.is_none() => return Ok(None),
                [false, false, false] if deadline.has_passed() => {
                    log::warn!("no VMM connected for {} within {FIRST_PATIENCE:?}", self.directory.display());
                    return Ok(None);
                }
                [false, false, false] => {}
            }
        }
    }

    /// Whoever connects, if it is the VMM; one that says what makes no sense is ended.
    fn receive_vmm(&self, plan: &Plan) -> Result<Option<Arrived>, PagerError> {
        let Ok((stream, _)) = self.listener.accept() else { return Ok(None) };
        let connection = UnixConnection::from(stream);
        let Some(vmm) = vmm_behind(&connection, self.directory) else {
            answer(&connection, plan.bytes, || object! { "error": "no VMM has connected yet" });
            return Ok(None);
        };
        let heard = handshake::hear(&connection, plan.bytes).map_err(PagerError::Handshake);
        let heard = heard.and_then(|said| match said {
            Said::Memory(layout, descriptor) => {
                let userfault = Userfault::serving(descriptor);
                userfault
                    .map(|userfault| Some((layout, userfault)))
                    .map_err(PagerError::system("take the userfaultfd"))
            }
            Said::Line(_) => Err(PagerError::Handshake(Senseless::Untrue("it is not a list of regions"))),
            Said::Nothing => Ok(None),
        });
        match heard {
            Ok(memory) => Ok(memory.map(|memory| Arrived { vmm, memory })),
            Err(error) => Err(self.end(&vmm, error)),
        }
    }

    fn serve(&self, prepared: &Prepared, Arrived { vmm, memory }: Arrived) -> Result<(), PagerError> {
        let (plan, image, vmm) = (&prepared.plan, &prepared.image, &vmm);
        let server = Server::new(plan, memory, image, self.figures).map_err(|error| self.end(vmm, error))?;
        let happened = EventFd::new().map_err(PagerError::system("create an eventfd"));
        let happened = happened.map_err(|error| self.end(vmm, error))?;
        let failure = Failure { first: Mutex::new(None), happened };
        self.figures.note(Count::TotalPages, server.layout.page_count());
        self.figures.note(Count::PageBytes, server.layout.page);
        self.figures.note_state(State::Serving);
        let stream = Stream::new(plan, &server.layout, &prepared.working_set);
        thread::scope(|scope| {
            let held = HeldSignals::hold();
            let mut started = Ok(());
            for _ in 0..plan.workers.max(1) {
                started = started.and_then(|()| failure.start(scope, || server.work()));
            }
            for _ in 0..stream.threads() {
                started = started.and_then(|()| failure.start(scope, || stream.work(&server)));
            }
            drop(held);
            let watched = started
                .map_err(PagerError::system("start a thread of the pager"))
                .and_then(|()| self.watch(plan, &server, vmm, &failure));
            server.stop.raise();
            watched.map_err(|error| self.end(vmm, error))
        })
    }

    /// Waits for the VMM's end, and meanwhile does what is asked for.
    fn watch(
        &self,
        plan: &Plan,
        server: &Server<'_>,
        vmm: &Process,
        failure: &Failure,
    ) -> Result<(), PagerError> {
        let mut is_stored = server.recorder.is_none();
        loop {
            let recorder = server.recorder.as_ref().filter(|_| !is_stored);
            let until = recorder.map_or(Deadline::NEVER, |recorder| lock(recorder).until());
            let recorded =
                if is_stored { Interest::Nothing } else { EventFd::interest(Some(&server.recorded)) };
            let [ended, failed, asked] =
                [vmm.pidfd(), failure.happened.as_fd(), self.listener.as_fd()].map(Interest::Readable);
            let woken = poll::wait([ended, failed, recorded, asked, EventFd::interest(self.stop)], until);
            match woken.map_err(PagerError::system("wait for the VMM's end"))? {
                [true, ..] => break,
                [_, true, ..] => {}
                [_, _, _, _, true] => return vmm.send(Signal::Kill).map_err(PagerError::Process),
                [_, _, _, true, _] => self.hear_owner(plan, server),
                // The recording is full, or its time is up.
                _ => {
                    is_stored = true;
                    store_or_warn(plan, server);
                }
            }
            // It may have happened while somebody was heard.
            if failure.happened.is_raised() {
                failure.look(vmm)?;
                break;
            }
        }
        if !is_stored {
            store_or_warn(plan, server);
        }
        Ok(())
    }

    /// Ends a VMM that waits for memory which nobody will serve; gives the reason on.
    fn end(&self, vmm: &Process, error: PagerError) -> PagerError {
        self.figures.note_state(State::Failed);
        (self.say)(&with_causes(&error));
        self.said.set(true);
        match vmm.send(Signal::Kill) {
            Ok(()) => error,
            Err(cannot) => PagerError::Process(cannot),
        }
    }

    fn hear_owner(&self, plan: &Plan, server: &Server<'_>) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        answer(&UnixConnection::from(stream), plan.bytes, || match store(plan, server) {
            Ok(Some(ranges)) => object! { "ranges": ranges },
            Ok(None) => {
                object! { "error": "no working set is recorded: restore with \"record\" to record one" }
            }
            Err(error) => object! { "error": with_causes(&error) },
        });
    }
}

impl Failure {
    fn start<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        work: impl FnOnce() -> Result<(), PagerError> + Send + 'scope,
    ) -> io::Result<()> {
        let run = move || {
            let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                Err(PagerError::System { what: "go on", source: io::Error::other("a thread panicked") })
            });
            if let Err(error) = done {
                lock(&self.first).get_or_insert(error);
                self.happened.raise();
            }
        };
        thread::Builder::new()
            .name("mvm-pager".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, run)
            .map(drop)
    }

    /// Gives the error, unless the VMM is on its way out: memory goes before the process does.
    fn look(&self, vmm: &Process) -> Result<(), PagerError> {
        let Some(error) = lock(&self.first).take() else { return Ok(()) };
        let patience = if matches!(error, PagerError::Gone) { LAST_PATIENCE } else { Duration::ZERO };
        let limits = Limits { deadline: Deadline::after(patience), interrupt: None };
        match vmm.wait(limits) {
            Ok(Waited::Exited(_)) => Ok(()),
            _ => Err(error),
        }
    }
}

/// Whoever is behind `connection`, if it works where the VMM of the VM in `directory` does.
fn vmm_behind(connection: &UnixConnection, directory: &Path) -> Option<Process> {
    let pid = connection.peer_pid().ok()?;
    let process = Process::find(Identity::of(pid).ok()?).ok()??;
    // Looked at after the process is held, so that the number is its own.
    (procfs::works_in(pid, &journal::vmm_directory(directory)) == Some(true)).then_some(process)
}

/// No VMM is to wait for an answer that never comes.
fn end_those_who_wait(directory: &Path, listener: &UnixListener) {
    socket::refuse(listener);
    while let Ok((stream, _)) = listener.accept() {
        if let Some(vmm) = vmm_behind(&UnixConnection::from(stream), directory) {
            let _told_above = vmm.send(Signal::Kill);
        }
    }
}

/// Answers a request of this process's own user.
fn answer(connection: &UnixConnection, bytes: u64, does: impl FnOnce() -> serde_json::Value) {
    let me = std::fs::metadata("/proc/self").map(|about| about.uid());
    let peer = connection.peer().map(|peer| peer.user);
    if !matches!((me, peer), (Ok(me), Ok(peer)) if me == peer) {
        return;
    }
    if let Ok(Said::Line(line)) = handshake::hear(connection, bytes) {
        let answer = if line == "store" {
            does()
        } else {
            object! { "error": "the only request is \"store\"" }
        };
        let _gone = connection.send(format!("{answer}\n").as_bytes());
    }
}

/// Stores what was recorded, and returns the number of contiguous ranges.
fn store(plan: &Plan, server: &Server<'_>) -> Result<Option<usize>, journal::Error> {
    let (Some(path), Some(recorder)) = (&plan.working_set, &server.recorder) else { return Ok(None) };
    let ranges = lock(recorder).ranges();
    working_set::store(path, plan.bytes, ranges).map(Some)
}

fn store_or_warn(plan: &Plan, server: &Server<'_>) {
    if let Err(error) = store(plan, server) {
        log::warn!("the working set is lost: {}", with_causes(&error));
    }
}

//! One running VMM: started in its directory, ready when its socket answers, then asked over one connection.

use super::advice::advice_on;
use super::api::Request;
use super::binary::Binary;
use super::client::{self, NoResponse};
use super::companions::end_companions;
use super::device_id::with_given_ids;
use super::error::{During, Error, RequestLine};
use super::http::{self, Response};
use super::jailer::{self, Confinement};
use crate::causes::with_causes;
use crate::host::files::View;
use crate::journal;
use crate::observe::console;
use crate::process::{self, Cgroups, Command, Limits, NewFiles, Process, Session, Stdio};
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::poll::{self, Interest};
use crate::sys::socket::{self, UnixConnection};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to start, and where.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The executable.
    pub binary: &'a Binary,
    /// The id that Firecracker gives as its own.
    pub id: &'a str,
    /// Its files.
    pub files: &'a VmmFiles,
    /// The name of the file that its metrics go to.
    pub metrics: Option<&'a str>,
    /// The length of the longest body that is sent to it.
    pub longest_body: usize,
    /// More arguments.
    pub arguments: &'a [String],
    /// The control groups that it is started in.
    pub cgroups: &'a Cgroups,
    /// How it is jailed, unless it is not.
    pub confinement: Option<Confinement>,
}

/// The files of a VM: what the library keeps for itself in its directory, and what the VMM opens by a name, which is
/// all below its working directory there.
#[derive(Clone, Debug)]
pub struct VmmFiles {
    directory: PathBuf,
    working: PathBuf,
    /// The directory of what the VMM knows by names, if that is not where it works.
    lent: Option<PathBuf>,
}

/// A VMM that is ready for requests. Dropping it ends nothing.
#[derive(Debug)]
pub struct Vmm {
    process: Arc<Process>,
    files: VmmFiles,
    connection: Option<UnixConnection>,
    started: Started,
    /// Which file its console is, by device and number.
    console: Option<(u64, u64)>,
    /// Requests whose answers nobody has waited for, in the order in which they were sent.
    unanswered: Vec<UnixConnection>,
}

/// How long the two halves of a start took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started {
    /// From the decision until the process executes.
    pub spawn: Duration,
    /// From there until its socket answers.
    pub socket: Duration,
}

/// The API socket's name in the VMM's working directory.
pub const API_SOCKET: &str = "api.sock";
/// The variable in a VMM's environment that names the VM's directory as it was when it was started.
pub(crate) const MARKER: &str = "MVM_DIRECTORY";
/// What a jailed VMM calls the snapshot that it loads.
pub(crate) const LENT_STATE: &str = "snapshot/state";
pub(crate) const LENT_MEMORY: &str = "snapshot/memory";
pub(crate) const LOG: &str = "vmm.log";
const BODY_LIMIT: &str = "--http-api-max-payload-size";
/// The longest body that the API takes when it is not told otherwise.
const USUAL_BODY_LIMIT: usize = 51_200;
/// How much of a VMM's output goes into an error.
const TAIL: u64 = 2000;
/// Between two looks at a socket that is not there yet.
const SHORTEST_STEP: Duration = Duration::from_micros(100);
const LONGEST_STEP: Duration = Duration::from_millis(1);

impl VmmFiles {
    /// The files of the VM in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { working: journal::vmm_directory(&directory), directory, lent: None }
    }

    /// The same when its VMM is jailed: it works in the jail's root directory.
    pub fn jailed(directory: PathBuf) -> Self {
        let lent = Some(journal::lent_directory(&directory));
        Self { lent, ..Self::new(directory) }
    }

    /// The same files elsewhere.
    pub fn moved_to(&self, directory: PathBuf) -> Self {
        if self.lent.is_some() { Self::jailed(directory) } else { Self::new(directory) }
    }

    /// What the VMM knows by names, as the host sees it.
    pub(crate) fn view(&self) -> View {
        self.lent.as_deref().map_or_else(|| View::plain(&self.working), View::jailed)
    }

    /// The VM's directory, which is the library's alone.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The VMM's working directory. A VMM may write into it what it likes.
    pub fn working_directory(&self) -> &Path {
        &self.working
    }

    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.working.join(API_SOCKET)
    }

    /// What the guest printed on its serial console; it goes on from one start to the next. The VMM inherits it open, and
    /// cannot put another file in its place.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// The VMM's own log of its present or last run.
    pub fn log(&self) -> PathBuf {
        self.working.join(LOG)
    }

    /// The VMM's standard error of its present or last run.
    pub fn errors(&self) -> PathBuf {
        self.directory.join("stderr.log")
    }

    /// The guest's memory, put together of several files, until the VMM has mapped it.
    pub fn memory(&self) -> PathBuf {
        self.lent.as_ref().map_or_else(|| self.working.join("memory"), |lent| lent.join(LENT_MEMORY))
    }

    /// All of them, whether they are there or not.
    pub fn all(&self) -> [PathBuf; 5] {
        [self.socket(), self.console(), self.log(), self.errors(), self.memory()]
    }

    /// The last of what the VMM said about itself.
    pub fn last_words(&self) -> String {
        [self.errors(), self.log()]
            .iter()
            .map(|file| console::tail(file, TAIL))
            .find(|words| !words.trim().is_empty())
            .unwrap_or_default()
    }
}

impl Vmm {
    /// Starts a VMM. It is not ready before [`Vmm::await_ready`] says so.
    ///
    /// # Errors
    /// The VMM that cannot be started; no process is left then.
    pub fn spawn(mut launch: Launch<'_>) -> Result<Self, Error> {
        let began = Instant::now();
        let (files, confinement) = (launch.files, launch.confinement.take());
        socket::remove_dead(&files.socket());
        let (console, errors) = open_outputs(files)?;
        let jailer = confinement.as_ref().map(|confinement| confinement.jailer.clone());
        let jailed = confinement.map(|confinement| {
            let places = (files.directory(), files.working_directory());
            jailer::isolate(confinement, (launch.id, launch.binary), places)
        });
        let (mut arguments, isolation) = match jailed.transpose()? {
            Some((arguments, isolation)) => (arguments, Some(isolation)),
            // A jailer says the id itself.
            None => (vec!["--id".into(), launch.id.into()], None),
        };
        arguments.extend(own_arguments(&launch));
        let command = Command {
            program: jailer.as_deref().unwrap_or(launch.binary.path()),
            arguments: &arguments,
            environment: &[marker(files)],
            stdio: [Stdio::Null, Stdio::File(console.as_fd()), Stdio::File(errors.as_fd())],
            directory: Some(files.working_directory()),
            session: Session::New,
            new_files: NewFiles::Private,
            cgroups: Some(launch.cgroups),
            isolation: isolation.as_ref(),
        };
        let process = Arc::new(Process::spawn(&command).map_err(Error::Process)?);
        let started = Started { spawn: began.elapsed(), socket: Duration::ZERO };
        Ok(Self { started, ..Self::adopt(process, files.clone()) })
    }

    /// Holds a VMM that was started by somebody else.
    pub fn adopt(process: Arc<Process>, files: VmmFiles) -> Self {
        let (connection, unanswered, console) = (None, Vec::new(), place_of(&files.console()));
        Self { process, files, connection, started: Started::default(), console, unanswered }
    }

    /// Its files are elsewhere from now on: its directory was renamed, and it works in it still.
    pub fn moved(&mut self, files: VmmFiles) {
        self.files = files;
    }

    /// Waits until its API answers.
    ///
    /// # Errors
    /// The VMM that ends, or does not open its socket in time.
    pub fn await_ready(&mut self, limits: Limits<'_>) -> Result<(), Error> {
        let spawned = Instant::now();
        self.connection = Some(self.connect_when_ready(limits)?);
        self.started.socket = spawned.elapsed();
        Ok(())
    }

    /// Its process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// How long its start took.
    pub fn started(&self) -> Started {
        self.started
    }

    /// Sends one request and gives the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer: the VMM ended, the time is up, the call was interrupted, or it makes no sense.
    pub fn request(&mut self, asked: &Request, limits: Limits<'_>) -> Result<Response, Error> {
        let began = Instant::now();
        loop {
            let response = self.request_once(asked, (began, limits))?;
            // Calls that were ended early have left connections that Firecracker has not closed yet. It has not looked at
            // the request, and will soon.
            if !response.is_of_a_full_server() || limits.deadline.has_passed() {
                return Ok(response);
            }
            let step = limits.deadline.or_sooner(Deadline::after(LONGEST_STEP));
            let interests = [Interest::Readable(self.process.pidfd()), limits.interest()];
            // An end or an interrupt is found by the next attempt.
            let _woken = poll::wait(interests, step);
        }
    }

    fn request_once(
        &mut self,
        asked: &Request,
        (began, limits): (Instant, Limits<'_>),
    ) -> Result<Response, Error> {
        let request = RequestLine::from(asked);
        let exchanged = self
            .settle(&request, limits)
            .and_then(|()| {
                let connection = self.connection();
                connection
                    .map_err(|error| self.lost_connection(During::Request(request.clone()), error, limits))
            })
            .and_then(|connection| {
                let answer = client::exchange(&connection, &self.process, asked, limits);
                let complete = answer.map_err(|why| self.no_response(&request, why, began.elapsed()))?;
                Ok((connection, complete))
            });
        let told =
            exchanged.as_ref().map_or("no answer".to_owned(), |(_, it)| it.response.status.to_string());
        log::debug!("{request}: {told} after {:?}, of process {}", began.elapsed(), self.process.pid());
        let (connection, complete) = exchanged?;
        // Firecracker may send a second refusal for one bad request; it shall not meet the next one.
        let usable = complete.response.is_success() && !complete.out_of_step;
        self.connection = usable.then_some(connection);
        Ok(complete.response)
    }

    /// The same for a request that has to be carried out.
    ///
    /// # Errors
    /// Besides those of [`Vmm::request`], a refusal, with Firecracker's own words.
    pub fn demand(&mut self, request: &Request, limits: Limits<'_>) -> Result<Response, Error> {
        let response = self.request(request, limits)?;
        if response.is_success() {
            return Ok(response);
        }
        let (request, fault) = (RequestLine::from(request), response.fault());
        let advice = advice_on(&fault);
        Err(Error::Refused {
            request,
            status: response.status,
            fault: with_given_ids(&fault).into_owned(),
            advice,
        })
    }

    /// Sends a request and does not wait for what becomes of it: the VMM is busy, and turns to it when it is done.
    /// The next request waits until it has.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send_ahead(&mut self, request: &Request) -> io::Result<()> {
        let (connection, request) =
            (self.connect()?, http::encode(request.method, &request.path, request.body.as_deref()));
        if connection.send(&request)? < request.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unanswered.push(connection);
        Ok(())
    }

    /// Waits until the requests that were sent ahead are answered; what was answered does not matter.
    fn settle(&mut self, request: &RequestLine, limits: Limits<'_>) -> Result<(), Error> {
        let began = Instant::now();
        let during = || During::Request(request.clone());
        while let Some(connection) = self.unanswered.first() {
            let interests = [
                Interest::Readable(connection.as_fd()),
                Interest::Readable(self.process.pidfd()),
                limits.interest(),
            ];
            let ready = poll::wait(interests, limits.deadline);
            match ready.map_err(|error| self.no_connection(during(), error))? {
                [_, true, _] => return Err(self.ended(during())?),
                [true, ..] => drop(self.unanswered.remove(0)),
                [_, _, true] => return Err(Error::Interrupted { during: during() }),
                [false, false, false] => return Err(self.timeout(during(), began.elapsed())),
            }
        }
        Ok(())
    }

    /// Takes the connection out; a request that fails does not put it back.
    fn connection(&mut self) -> io::Result<UnixConnection> {
        match self.connection.take() {
            Some(connection) if client::is_in_step(&connection) => Ok(connection),
            _ => self.connect(),
        }
    }

    /// A connection to this VMM, and to no other process that may have bound its socket anew.
    fn connect(&self) -> io::Result<UnixConnection> {
        let (socket, is_jailed) = (self.files.socket(), self.files.lent.is_some());
        let connection = match is_jailed {
            true => UnixConnection::connect_without_links(&socket),
            false => UnixConnection::connect(&socket),
        };
        let connection = connection?;
        match connection.peer_pid()? {
            // Listeners of other pid namespaces have no number here; that of a jail is below ours.
            0 if !is_jailed => Ok(connection),
            peer if peer == self.process.pid() => Ok(connection),
            peer => Err(io::Error::other(format!(
                "process {peer} listens there, and the VMM is {}: a wrapper must become Firecracker by exec, as in \
                 exec firecracker \"$@\"",
                self.process.pid()
            ))),
        }
    }

    /// Tries the socket again and again, in steps that stay a small part of the time that has gone by. (Watching
    /// the directory by inotify was tried: closing the watch waits for the kernel, often longer than the VMM
    /// takes to come up.)
    fn connect_when_ready(&self, limits: Limits<'_>) -> Result<UnixConnection, Error> {
        let began = Instant::now();
        let failed = |error| self.no_connection(During::Startup, error);
        loop {
            match self.connect() {
                Ok(connection) => return Ok(connection),
                Err(error) if is_not_yet(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            let step = (began.elapsed() / 16).clamp(SHORTEST_STEP, LONGEST_STEP);
            let interests = [Interest::Readable(self.process.pidfd()), limits.interest()];
            let until = limits.deadline.or_sooner(Deadline::after(step));
            match poll::wait(interests, until).map_err(failed)? {
                [true, _] => return Err(self.ended(During::Startup)?),
                [_, true] => return Err(Error::Interrupted { during: During::Startup }),
                _ if limits.deadline.has_passed() => {
                    return Err(self.timeout(During::Startup, began.elapsed()));
                }
                _ => {}
            }
        }
    }

    fn no_response(&self, request: &RequestLine, why: NoResponse, waited: Duration) -> Error {
        let during = During::Request(request.clone());
        match why {
            NoResponse::Exited(exit) => Error::Exited { during, exit, output: self.files.last_words() },
            NoResponse::TimeIsUp => self.timeout(during, waited),
            NoResponse::Interrupted => Error::Interrupted { during },
            NoResponse::Senseless(source) => Error::Response { request: request.clone(), source },
            NoResponse::Connection(source) => self.no_connection(during, source),
            NoResponse::Process(source) => Error::Process(source),
        }
    }

    /// A VMM that cannot be reached has often just ended, and then that is what there is to say.
    fn no_connection(&self, during: During, source: io::Error) -> Error {
        match self.process.exit_status() {
            Ok(Some(exit)) => Error::Exited { during, exit, output: self.files.last_words() },
            _ => Error::Connection { during, socket: self.files.socket(), source },
        }
    }

    /// A VMM that dies closes its socket some milliseconds before it is gone.
    fn lost_connection(&self, during: During, source: io::Error, limits: Limits<'_>) -> Error {
        let _ended_or_not = self.process.wait(limits.no_later_than(Deadline::after(client::LAST_BREATH)));
        self.no_connection(during, source)
    }

    fn ended(&self, during: During) -> Result<Error, Error> {
        let exit = self.process.exit_status().map_err(Error::Process)?;
        let exit = exit.unwrap_or(crate::process::ExitStatus::ReapedByHost);
        Ok(Error::Exited { during, exit, output: self.files.last_words() })
    }

    fn timeout(&self, during: During, after: Duration) -> Error {
        Error::Timeout { during, after, output: self.files.last_words() }
    }

    /// SIGKILL, its end awaited for a bounded time, and what ran beside it ended.
    ///
    /// # Errors
    /// When it outlives that: stuck in the kernel.
    pub(crate) fn end_at_once(&self) -> Result<(), process::Error> {
        const ENOUGH: Duration = Duration::from_secs(5);
        self.process.kill(ENOUGH)?;
        self.end_companions();
        Ok(())
    }

    /// Ends what ran beside it, when it has ended.
    pub(crate) fn end_companions(&self) {
        // Where the state directory was moved, another owner's VM may have the same path.
        let is_in_place = || self.console.is_some() && self.console == place_of(&self.files.console());
        if let Err(error) = end_companions(self.process.pid(), &self.files, is_in_place) {
            log::warn!("{}", with_causes(&error));
        }
    }
}

/// By which a VMM is known whose directory was moved away.
fn marker(files: &VmmFiles) -> OsString {
    let mut marker = OsString::from(MARKER);
    marker.push("=");
    marker.push(files.directory());
    marker
}

fn place_of(file: &Path) -> Option<(u64, u64)> {
    file.symlink_metadata().ok().as_ref().map(file::identity)
}

fn own_arguments(launch: &Launch<'_>) -> Vec<OsString> {
    let own = ["--api-sock", API_SOCKET, "--log-path", LOG];
    let metrics = launch.metrics.into_iter().flat_map(|file| ["--metrics-path", file]);
    // What a config file may hold is longer than what the API takes, unless it is told.
    let is_told = launch.arguments.iter().any(|argument| argument == BODY_LIMIT);
    let is_short = launch.longest_body <= USUAL_BODY_LIMIT;
    let limit = (!is_short && !is_told).then(|| [BODY_LIMIT.to_owned(), launch.longest_body.to_string()]);
    let own = own.into_iter().chain(metrics).map(OsString::from);
    let more =
        limit.into_iter().flatten().map(OsString::from).chain(launch.arguments.iter().map(OsString::from));
    own.chain(more).collect()
}

/// The guest's console goes on where it was; what the VMM says of itself begins anew.
fn open_outputs(files: &VmmFiles) -> Result<(File, File), Error> {
    let open = |path: PathBuf, options: &mut OpenOptions| {
        let opened = file::open_plain(options.write(true).create(true).mode(0o600), &path);
        opened.map_err(|source| Error::Output { path, source })
    };
    let anew = |path: PathBuf| {
        let file = open(path.clone(), &mut OpenOptions::new())?;
        file.set_len(0).map_err(|source| Error::Output { path, source }).map(|()| file)
    };
    anew(files.log())?;
    let console = open(files.console(), OpenOptions::new().append(true))?;
    lock_console(&console);
    Ok((console, anew(files.errors())?))
}

/// The VMM inherits the lock and holds it until it is gone: whoever finds it free knows that there is none. A child
/// for another VM that was cloned while this console was open holds it too, until it executes, which is soon. One
/// that the host has forked may hold it for ever, and is no reason not to start.
fn lock_console(console: &File) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let until = Deadline::after(PATIENCE);
    while matches!(console.try_lock(), Err(TryLockError::WouldBlock)) && !until.has_passed() {
        std::thread::sleep(SHORTEST_STEP);
    }
}

/// Not bound, bound and not listening, or busy with others.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED | libc::EAGAIN))
}

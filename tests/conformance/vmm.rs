//! One VMM process with its own directory, and the bytes that go to and fro. Whatever happens, dropping it
//! ends the process and removes the directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{guest, jail};
use mvm::sys::file::identity;
use mvm::sys::pidfd::{Pidfd, Signal};

/// Nothing that a VMM is asked here takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at something that cannot be waited for.
const GLANCE: Duration = Duration::from_micros(200);
/// How long nothing must come for an answer of unknown length to be over.
const QUIET: Duration = Duration::from_millis(150);

/// The guests that a conversation can name.
const GUESTS: [&str; 10] =
    ["halt", "off", "crash", "count", "obey", "report", "dirty", "pattern", "scan", "scatter"];

/// A directory of its own, with the guests in it.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    /// Somebody who lives in a network namespace of his own.
    networker: Option<Child>,
}

pub(crate) struct Vmm {
    child: Child,
    home: Home,
    /// The process that a launcher has started and named.
    followed: Option<Pidfd>,
    streams: Vec<UnixStream>,
    pub(crate) socket: PathBuf,
}

/// Where a process is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Ours,
    /// It is pid 1 of a namespace.
    NewPids,
}

/// An answer, its head checked.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) is_deprecated: bool,
    pub(crate) body: String,
}

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mvm-conformance-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let scratch = Self { path, networker: None };
        guest::write_all(&scratch.path);
        Ok(scratch)
    }

    pub(crate) fn make_network_namespace(&mut self) -> io::Result<()> {
        let networker = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn()?;
        let is_there = |path: &str| fs::read_link(path).ok();
        let own = is_there("/proc/self/ns/net");
        let path = format!("/proc/{}/ns/net", networker.id());
        self.networker = Some(networker);
        let deadline = Instant::now() + PATIENCE;
        while is_there(&path) == own {
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// What no other scratch is called.
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A line's text with `{dir}` and the guests' names filled in.
    pub(crate) fn fill_in(&self, text: &str) -> String {
        let directory = self.path.display().to_string();
        let mut text = text.to_owned();
        for guest in GUESTS {
            text = text.replace(&format!("{{{guest}}}"), &format!("{directory}/{guest}.elf"));
        }
        if let Some(networker) = &self.networker {
            text = text.replace("{netns}", &format!("/proc/{}/ns/net", networker.id()));
        }
        for (name, controller) in [("{cpu}", "cpu"), ("{pids}", "pids"), ("{unified}", "")] {
            if let Some(hierarchy) = text.contains(name).then(|| jail::hierarchy_of(controller)).flatten() {
                text = text.replace(name, &hierarchy.display().to_string());
            }
        }
        text = text.replace("{name}", &self.name());
        text.replace("{root}", "{dir}/jails/firecracker/j/root").replace("{dir}", &directory)
    }

    /// The opposite, for what a VMM says.
    pub(crate) fn abstracted(&self, text: &str) -> String {
        let directory = self.path.display().to_string();
        let mut text = text.to_owned();
        for guest in GUESTS {
            text = text.replace(&format!("{directory}/{guest}.elf"), &format!("{{{guest}}}"));
        }
        text.replace(&directory, "{dir}").replace(&self.name(), "{name}")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(networker) = &mut self.networker {
            let _ = networker.kill();
            let _ = networker.wait();
        }
        if self.path.join(jail::FILE).exists() {
            jail::remove_cgroups(&self.name());
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Vmm {
    /// Its stdout and stderr are files: a VMM blocks on a pipe that nobody drains.
    pub(crate) fn start(
        program: &Path,
        scratch: &Scratch,
        arguments: &[String],
        home: Home,
    ) -> io::Result<Self> {
        let output = |name: &str| File::options().create(true).append(true).open(scratch.path.join(name));
        // Whoever starts the tests in the background has them ignore SIGINT, and a VMM inherits that.
        let inherits = match scratch.path.join(jail::FILE).exists() {
            true => format!("9<{}", jail::FILE),
            false => String::new(),
        };
        let home_maker = match home {
            Home::Ours => "",
            Home::NewPids => "unshare --pid --fork --kill-child",
        };
        let shell = format!("umask 022; exec env --default-signal {home_maker} \"$@\" {inherits}");
        let child = Command::new("sh")
            .args(["-c", shell.as_str(), "sh"])
            .arg(program)
            .env(jail::VARIABLE.0, jail::VARIABLE.1)
            .args(arguments)
            .current_dir(&scratch.path)
            .stdin(Stdio::null())
            .stdout(output("stdout")?)
            .stderr(output("stderr")?)
            .spawn()?;
        let is_jailed = arguments.iter().any(|argument| argument == "--chroot-base-dir");
        let socket = scratch.fill_in(if is_jailed { "{root}/api" } else { "{dir}/api" });
        Ok(Self { child, home, followed: None, streams: Vec::new(), socket: PathBuf::from(socket) })
    }

    pub(crate) fn pid(&self) -> u32 {
        let child = self.child.id();
        match (&self.followed, self.home) {
            (Some(process), _) => u32::try_from(process.pid()).unwrap_or(child),
            (None, Home::Ours) => child,
            (None, Home::NewPids) => only_child(child).unwrap_or(child),
        }
    }

    /// Waits for a jail's process to be told in a file beside the API socket, and has it for the VMM from now on.
    pub(crate) fn follow(&mut self, file: &str) -> Result<(), String> {
        see(Path::new(file), "*")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(process) = self.process_in_jail(Path::new(file)) {
                self.followed = Some(process);
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
        Err(format!("{file} names no process of the jail"))
    }

    fn process_in_jail(&self, file: &Path) -> Option<Pidfd> {
        let process = Pidfd::open(fs::read_to_string(file).ok()?.parse().ok()?).ok()?;
        let root = fs::metadata(format!("/proc/{}/root/", process.pid())).ok()?;
        let jail = fs::metadata(file.parent()?).ok()?;
        (identity(&root) == identity(&jail)).then_some(process)
    }

    pub(crate) fn connect(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    self.streams.push(stream);
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(error) => match self.child.try_wait()? {
                    Some(status) if self.followed.is_none() => {
                        return Err(io::Error::other(format!("the VMM has ended: {status} ({error})")));
                    }
                    _ => thread::sleep(GLANCE),
                },
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream()?.write_all(bytes) {
            // What a VMM that does not listen answers is to be seen by reading.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Reads one answer and checks what every answer of Firecracker's has in common.
    pub(crate) fn receive(&mut self) -> Result<Answer, String> {
        let stream = self.stream().map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => head.push(byte[0]),
                Err(error) => return Err(format!("no answer: {error}")),
            }
        }
        let head = String::from_utf8(head).map_err(|error| error.to_string())?;
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.strip_suffix(' '));
        let status: u16 =
            status.and_then(|status| status.parse().ok()).ok_or(format!("status line: {status_line:?}"))?;
        let headers: Vec<&str> = lines.collect();
        let has = |header: &str| headers.contains(&header);
        if !has("Server: Firecracker API") || !has("Connection: keep-alive") {
            return Err(format!("headers: {headers:?}"));
        }
        let length = headers.iter().find_map(|header| header.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(Ok(0), str::parse).map_err(|_| format!("headers: {headers:?}"))?;
        if (length > 0) != has("Content-Type: application/json") {
            return Err(format!("headers: {headers:?}"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(|error| format!("half an answer: {error}"))?;
        let body = String::from_utf8(body).map_err(|error| error.to_string())?;
        Ok(Answer { status, is_deprecated: has("Deprecation: true"), body })
    }

    /// Reads so many bytes, or, without a number, until nothing comes any more. None when the connection is
    /// closed.
    pub(crate) fn receive_raw(&mut self, length: Option<usize>) -> io::Result<Option<Vec<u8>>> {
        let stream = self.stream()?;
        stream.set_read_timeout(Some(if length.is_some() { PATIENCE } else { QUIET }))?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while length.is_none_or(|length| bytes.len() < length) {
            let room = length.map_or(buffer.len(), |length| buffer.len().min(length - bytes.len()));
            match stream.read(&mut buffer[..room]) {
                Ok(0) if bytes.is_empty() => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Ok(0) | Err(_) => break,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            }
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Some(bytes))
    }

    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        let number = match name {
            "SIGHUP" => libc::SIGHUP,
            "SIGINT" => libc::SIGINT,
            "SIGILL" => libc::SIGILL,
            "SIGBUS" => libc::SIGBUS,
            "SIGUSR1" => libc::SIGUSR1,
            "SIGSEGV" => libc::SIGSEGV,
            "SIGPIPE" => libc::SIGPIPE,
            "SIGTERM" => libc::SIGTERM,
            "SIGXCPU" => libc::SIGXCPU,
            "SIGXFSZ" => libc::SIGXFSZ,
            "SIGSYS" => libc::SIGSYS,
            _ => return Err(io::Error::other(format!("no such signal: {name}"))),
        };
        mvm::sys::signal::send(self.pid(), number)
    }

    /// Waits for the end: `CODE`, or `signal NUMBER`; of another's child it is not known which.
    pub(crate) fn wait(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(process) = &self.followed {
            while Instant::now() < deadline && !process.has_ended().map_err(|error| error.to_string())? {
                thread::sleep(GLANCE);
            }
            let has_ended = process.has_ended().map_err(|error| error.to_string())?;
            return if has_ended { Ok("somehow".to_owned()) } else { Err("it does not end".to_owned()) };
        }
        while Instant::now() < deadline {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => return Ok(described(status)),
                None => thread::sleep(GLANCE),
            }
        }
        Err("it does not end".to_owned())
    }

    pub(crate) fn has_stream(&self) -> bool {
        !self.streams.is_empty()
    }

    fn stream(&mut self) -> io::Result<&mut UnixStream> {
        self.streams.last_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let pid_file = self.socket.with_file_name("firecracker.pid");
        if let Some(process) = self.followed.take().or_else(|| self.process_in_jail(&pid_file)) {
            let _ = process.send(Signal::Kill);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a file to hold a text, in which `*` stands for anything.
pub(crate) fn see(path: &Path, text: &str) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let pattern = format!("*{text}*");
    loop {
        let contents =
            fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if super::conversation::matches(&pattern, &contents) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{} has no {text:?} in it, but: {contents}", path.display()));
        }
        thread::sleep(GLANCE);
    }
}

fn only_child(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

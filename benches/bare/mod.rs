//! The bare loop that the library is held against, and how the two are told side by side.
#![allow(dead_code, reason = "each bench takes what it needs")]

pub mod handlers;

use crate::common::guest::Guest;
use crate::common::{self, Scratch};
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The bare loop: a directory, the output files, the process, its socket, and three requests.
pub struct Bare {
    scratch: Scratch,
    firecracker: PathBuf,
    kernel: PathBuf,
}

pub struct BareVmm {
    child: Child,
    connection: UnixStream,
    directory: PathBuf,
}

impl Bare {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let kernel = common::guest::write(scratch.path(), Guest::Halt);
        Self { scratch, firecracker: common::firecracker(), kernel }
    }

    /// A VMM that waits for its first request.
    pub fn spawn(&self, id: &str) -> BareVmm {
        let directory = self.scratch.path().join(id);
        fs::create_dir(&directory).unwrap();
        File::create(directory.join("vmm.log")).unwrap();
        let mut command = Command::new(&self.firecracker);
        command.args(["--id", id, "--api-sock", "api.sock", "--log-path", "vmm.log"]).current_dir(&directory);
        let child = spawn(&mut command, &directory);
        let connection = connect(&directory.join("api.sock"));
        BareVmm { child, connection, directory }
    }

    pub fn boot(&self, id: &str) -> BareVmm {
        let kernel = self.kernel.to_string_lossy();
        configured(self.spawn(id), &kernel)
    }

    /// The same by way of the jailer, which finds the kernel in the chroot: a copy that its user may read.
    pub fn boot_jailed(&self, id: &str, user: u32) -> BareVmm {
        let base = self.scratch.path().join("jails");
        let name = self.firecracker.file_name().unwrap();
        let directory = base.join(name).join(id);
        let root = directory.join("root");
        fs::create_dir_all(&root).unwrap();
        fs::copy(&self.kernel, root.join("kernel")).unwrap();
        for file in ["kernel", "vmm.log"] {
            let file = File::options().append(true).create(true).open(root.join(file)).unwrap();
            std::os::unix::fs::fchown(&file, Some(user), Some(user)).unwrap();
        }
        let user = user.to_string();
        let mut command = Command::new(common::jailer());
        command
            .args(["--id", id, "--uid", &user, "--gid", &user])
            .arg("--exec-file")
            .arg(&self.firecracker)
            .arg("--chroot-base-dir")
            .arg(&base)
            .args(["--", "--api-sock", "api.sock", "--log-path", "vmm.log"]);
        let child = spawn(&mut command, &directory);
        let connection = connect(&root.join("api.sock"));
        configured(BareVmm { child, connection, directory }, "kernel")
    }
}

impl BareVmm {
    pub fn request(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        let request = if body.is_empty() {
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        } else {
            request
        };
        self.connection.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = self.connection.read(&mut answer).unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 20"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
    }

    pub fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Starts a VMM whose output goes to files in `directory`.
fn spawn(command: &mut Command, directory: &Path) -> Child {
    let output = |name: &str| File::create(directory.join(name)).unwrap();
    command.env_clear().stdin(Stdio::null()).stdout(output("console.log")).stderr(output("stderr.log"));
    command.spawn().unwrap()
}

fn configured(mut vmm: BareVmm, kernel: &str) -> BareVmm {
    vmm.request("PUT", "/machine-config", r#"{"vcpu_count":1,"mem_size_mib":128}"#);
    vmm.request("PUT", "/boot-source", &json!({ "kernel_image_path": kernel }).to_string());
    vmm.request("PUT", "/actions", r#"{"action_type":"InstanceStart"}"#);
    vmm
}

fn connect(socket: &Path) -> UnixStream {
    loop {
        if let Ok(connection) = UnixStream::connect(socket) {
            return connection;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub fn in_parallel<T: Send>(ids: &[String], work: impl Fn(&str) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads = ids.iter().map(|id| scope.spawn(|| work(id))).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

pub fn compare(what: &str, library: Duration, bare: Duration) {
    let ratio = library.as_secs_f64() / bare.as_secs_f64();
    println!("| {what} | {} | {} | {ratio:.2} |", show(library), show(bare));
}

pub fn spread(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("| {what} | {} | {} | {} |", show(at(0.5)), show(at(0.99)), show(at(1.0)));
}

pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn show(time: Duration) -> String {
    match time.as_micros() {
        0 => "below 1 µs".to_owned(),
        micros if micros < 1000 => format!("{micros} µs"),
        micros => format!("{:.2} ms", micros as f64 / 1000.0),
    }
}

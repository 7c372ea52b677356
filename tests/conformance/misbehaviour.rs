//! What the simulator does wrong on request; no real VMM does, so nothing is compared.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::vmm::{Home, Scratch, Vmm, see};

const REQUEST: &[u8] = b"GET /version HTTP/1.1\r\n\r\n";

/// A simulator with these faults, and its directory.
pub(crate) fn simulator(faults: &[&str]) -> (Vmm, Scratch) {
    let scratch = Scratch::new().expect("a directory");
    let mut arguments = vec!["--api-sock".to_owned(), scratch.fill_in("{dir}/api")];
    for fault in faults {
        arguments.extend(["--sim-fault".to_owned(), (*fault).to_owned()]);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_firecracker-sim"));
    let vmm = Vmm::start(program, &scratch, &arguments, Home::Ours).expect("a process");
    (vmm, scratch)
}

/// What the first request is answered with; nothing when the connection is closed without a word.
fn answer(fault: &str) -> Vec<u8> {
    let (mut vmm, _scratch) = simulator(&[fault]);
    vmm.connect().expect("a connection");
    vmm.send(REQUEST).expect("a request");
    vmm.receive_raw(None).expect("an answer").unwrap_or_default()
}

fn text(fault: &str) -> String {
    String::from_utf8_lossy(&answer(fault)).into_owned()
}

#[test]
fn a_status_is_answered_in_place_of_the_request() {
    assert!(text("1:status=503").starts_with("HTTP/1.1 503 \r\n"));
    assert!(text("1:status=503").contains("fault_message"));
}

#[test]
fn an_answer_is_cut_short_or_missing() {
    assert_eq!(text("1:drop"), "");
    assert!("HTTP/1.1 200 \r\nServer: Firecracker API\r\n".starts_with(&text("1:truncate")[..20]));
    assert!(!text("1:truncate").contains("\r\n\r\n"));
    let half = text("1:close");
    assert!(half.contains("Content-Length: 40\r\n") && half.ends_with("{\"half\":\"of a body"), "{half}");
}

#[test]
fn an_answer_is_no_http_or_too_much_of_it() {
    assert!(answer("1:garbage").contains(&0xff));
    assert!(text("1:extra").ends_with("{\"firecracker_version\":\"1.16.1\"}stray bytes\r\n"));
    let oversized = text("1:oversize");
    assert!(oversized.len() > 256 * 1024 && oversized.contains("Content-Length: 9223372036854775807"));
}

#[test]
fn an_answer_is_late_or_never_comes() {
    let started = Instant::now();
    let (mut vmm, _scratch) = simulator(&["1:slow=100", "2:drip=1", "3:hang"]);
    vmm.connect().expect("a connection");
    vmm.send(REQUEST).expect("a request");
    assert_eq!(vmm.receive().expect("a late answer").status, 200);
    assert!(started.elapsed() >= Duration::from_millis(100));
    let started = Instant::now();
    vmm.send(REQUEST).expect("a request");
    assert_eq!(vmm.receive().expect("a slow answer").status, 200);
    assert!(started.elapsed() >= Duration::from_millis(100));
    vmm.send(REQUEST).expect("a request");
    assert!(vmm.receive_raw(None).expect("an open connection").expect("an open connection").is_empty());
    vmm.connect().expect("another connection");
    vmm.send(REQUEST).expect("a request");
    assert_eq!(vmm.receive().expect("others are served").status, 200);
}

#[test]
fn a_request_ends_the_process() {
    for (fault, end) in [("1:exit=7", "7"), ("1:crash", "signal 11")] {
        let (mut vmm, _scratch) = simulator(&[fault]);
        vmm.connect().expect("a connection");
        vmm.send(REQUEST).expect("a request");
        assert_eq!(vmm.wait().expect("an end"), end);
    }
}

#[test]
fn the_nth_request_is_counted_over_all_connections() {
    let (mut vmm, _scratch) = simulator(&["2:status=500"]);
    for status in [200, 500, 200] {
        vmm.connect().expect("a connection");
        vmm.send(REQUEST).expect("a request");
        assert_eq!(vmm.receive().expect("an answer").status, status);
    }
}

#[test]
fn the_start_ends_at_once() {
    for (fault, end) in
        [("0:exit=3", "3"), ("0:crash", "signal 11"), ("1:nonsense", "153"), ("0:drop", "153")]
    {
        assert_eq!(simulator(&[fault]).0.wait().expect("an end"), end, "{fault}");
    }
}

#[test]
fn the_socket_is_not_there_or_not_listened_to() {
    let (mut deaf, _scratch) = simulator(&["0:deaf"]);
    deaf.connect().expect("a connection");
    deaf.send(REQUEST).expect("a request");
    assert!(deaf.receive_raw(None).expect("an open connection").expect("an open connection").is_empty());

    let (mut without, scratch) = simulator(&["0:no-socket"]);
    super::see(&scratch.path.join("stdout"), "Running Firecracker").expect("it runs");
    without.signal("SIGTERM").expect("a signal");
    assert_eq!(without.wait().expect("an end"), "signal 15");
    assert!(!scratch.path.join("api").exists());
}

#[test]
fn a_version_is_told_that_it_is_not() {
    let (mut vmm, _scratch) = simulator(&["0:version=1.7.0", "0:slow=20"]);
    vmm.connect().expect("a connection");
    vmm.send(REQUEST).expect("a request");
    assert_eq!(vmm.receive().expect("an answer").body, r#"{"firecracker_version":"1.7.0"}"#);
}

#[test]
fn sigterm_is_survived_on_request() {
    let (mut vmm, _scratch) = simulator(&["0:ignore-sigterm"]);
    vmm.connect().expect("a connection");
    vmm.signal("SIGTERM").expect("a signal");
    vmm.send(REQUEST).expect("a request");
    assert_eq!(vmm.receive().expect("it still answers").status, 200);
}

#[test]
fn a_client_that_closes_its_half_is_not_answered() -> io::Result<()> {
    let (mut vmm, scratch) = simulator(&[]);
    vmm.connect()?;
    let mut stream = std::os::unix::net::UnixStream::connect(scratch.path.join("api"))?;
    stream.write_all(REQUEST)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut bytes = Vec::new();
    // Whether the end is clean depends on what was read before it.
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
    Ok(())
}

#[test]
fn a_jailers_arguments_lead_into_its_directory() -> io::Result<()> {
    let scratch = Scratch::new()?;
    let simulator = env!("CARGO_BIN_EXE_firecracker-sim");
    let line = format!(
        "--id j1 --exec-file {simulator} --uid 0 --gid 0 --chroot-base-dir {{dir}} -- --api-sock /api.socket"
    );
    let arguments: Vec<String> = line.split(' ').map(|word| scratch.fill_in(word)).collect();
    let mut vmm = Vmm::start(Path::new(simulator), &scratch, &arguments, Home::Ours)?;
    vmm.socket = scratch.path.join("firecracker-sim/j1/root/api.socket");
    vmm.connect()?;
    vmm.send(b"GET / HTTP/1.1\r\n\r\n")?;
    assert!(vmm.receive().expect("an answer").body.contains(r#""id":"j1""#));
    Ok(())
}

#[test]
fn a_crash_that_was_asked_for_ends_pid_1_too() -> io::Result<()> {
    if !super::jail::may_be_made() {
        super::say("skipped: this user may not have a pid namespace");
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let arguments = ["--sim-fault", "0:crash"].map(str::to_owned);
    let simulator = Path::new(env!("CARGO_BIN_EXE_firecracker-sim"));
    let mut vmm = Vmm::start(simulator, &scratch, &arguments, Home::NewPids)?;
    assert_eq!(vmm.wait().expect("an end"), "signal 11");
    Ok(())
}

#[test]
fn an_older_jailer_panics_where_it_refuses() -> io::Result<()> {
    let scratch = Scratch::new()?;
    let line =
        "--sim-fault 0:version=1.12.1 --id j --exec-file {halt} --uid 0 --gid 0 --chroot-base-dir {dir}";
    let arguments: Vec<String> = line.split(' ').map(|word| scratch.fill_in(word)).collect();
    let simulator = Path::new(env!("CARGO_BIN_EXE_firecracker-sim"));
    let mut jailer = Vmm::start(simulator, &scratch, &arguments, Home::Ours)?;
    assert_eq!(jailer.wait().expect("an end"), "signal 6");
    let reason = "Jailer error: Invalid filename. The filename of `--exec-file` option must contain";
    see(&scratch.path.join("stderr"), reason).expect("the reason");
    Ok(())
}

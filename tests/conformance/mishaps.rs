//! What goes wrong with the simulator's snapshots on request, and what only a guest with drivers does: no real VMM does
//! it at will, so nothing is compared.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use mvm::sys::socket::UnixConnection;
use mvm::sys::userfault::Userfault;

use super::misbehaviour::simulator;
use super::pager::{Pager, next_message};
use super::vmm::{Home, Scratch, Vmm, see};

/// 2 of 128 MiB are needed, and no more is written.
const PATTERN: &str = "fill 40 42\nsay filled\nawait\ncheck 40 42\nback 2";

/// A kernel that does what the script says.
fn kernel(scratch: &Scratch, script: &str) -> PathBuf {
    let path = scratch.path.join("scripted.elf");
    let mut contents = fs::read(scratch.path.join("halt.elf")).expect("a guest");
    contents.extend_from_slice(b"\0");
    let marker = contents.windows(5).position(|window| window == b"#!mvm").expect("a script");
    contents.truncate(marker);
    contents.extend_from_slice(format!("#!mvm-guest\n{script}\n\0").as_bytes());
    contents.resize(8192, 0);
    fs::write(&path, contents).expect("a file");
    path
}

/// A status and its body.
fn ask(vmm: &mut Vmm, request: &str) -> (u16, String) {
    let answer = say(vmm, request).and_then(|()| vmm.receive()).expect("an answer");
    (answer.status, answer.body)
}

fn say(vmm: &mut Vmm, request: &str) -> Result<(), String> {
    if !vmm.has_stream() {
        vmm.connect().map_err(|error| error.to_string())?;
    }
    vmm.send(&super::as_http(request)).map_err(|error| error.to_string())
}

fn done(vmm: &mut Vmm, request: &str) {
    let (status, body) = ask(vmm, request);
    assert_eq!(status, 204, "{request}: {body}");
}

/// Boots the script, up to "filled", with these faults; three requests have been made.
fn booted(script: &str, faults: &[&str]) -> (Vmm, Scratch) {
    let (mut vmm, scratch) = simulator(faults);
    let kernel = kernel(&scratch, script);
    done(&mut vmm, &format!(r#"PUT /boot-source {{"kernel_image_path":"{}"}}"#, kernel.display()));
    done(&mut vmm, r#"PUT /balloon {"amount_mib":0,"deflate_on_oom":false,"stats_polling_interval_s":1}"#);
    done(&mut vmm, r#"PUT /actions {"action_type":"InstanceStart"}"#);
    see(&scratch.path.join("stdout"), "filled").expect("the guest is up");
    (vmm, scratch)
}

fn create(scratch: &Scratch) -> String {
    scratch.fill_in(r#"PUT /snapshot/create {"snapshot_path":"{dir}/state","mem_file_path":"{dir}/memory"}"#)
}

fn load(scratch: &Scratch, kind: &str, path: &str) -> String {
    let body = r#"{"snapshot_path":"{dir}/state","resume_vm":true,"mem_backend":{"backend_type":"KIND","backend_path":"{dir}/PATH"}}"#;
    scratch.fill_in(&format!("PUT /snapshot/load {}", body.replace("KIND", kind).replace("PATH", path)))
}

/// A snapshot in a directory, and nobody who runs it.
fn snapshot(script: &str) -> Scratch {
    let (mut vmm, scratch) = booted(script, &[]);
    done(&mut vmm, r#"PATCH /vm {"state":"Paused"}"#);
    done(&mut vmm, &create(&scratch));
    drop(vmm);
    fs::remove_file(scratch.path.join("stdout")).expect("a console");
    scratch
}

fn restorer(scratch: &Scratch, fault: &str) -> Vmm {
    let _former = fs::remove_file(scratch.path.join("api"));
    let arguments = ["--api-sock", &scratch.fill_in("{dir}/api"), "--sim-fault", fault].map(str::to_owned);
    Vmm::start(Path::new(env!("CARGO_BIN_EXE_firecracker-sim")), scratch, &arguments, Home::Ours)
        .expect("a process")
}

/// Whether this user may have page faults served; what needs it is left out otherwise, and said to be.
fn may_serve() -> bool {
    let may = Userfault::new().is_ok();
    if !may {
        super::say("skipped: this user may not have page faults served");
    }
    may
}

#[test]
fn a_disk_that_fills_up_leaves_half_a_snapshot_and_a_vm_that_goes_on() {
    let (mut vmm, scratch) = booted(PATTERN, &["5:no-space"]);
    done(&mut vmm, r#"PATCH /vm {"state":"Paused"}"#);
    let (status, body) = ask(&mut vmm, &create(&scratch));
    assert!(status == 400 && body.contains("Cannot write memory file"), "{body}");
    assert!(body.contains("No space left on device (os error 28)"), "{body}");
    assert_eq!(fs::metadata(scratch.path.join("memory")).expect("a partial file").len(), 128 << 20);
    done(&mut vmm, r#"PATCH /vm {"state":"Resumed"}"#);
    done(&mut vmm, r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#);
    see(&scratch.path.join("stdout"), "\nok\n").expect("the guest goes on");
}

#[test]
fn a_vmm_can_crash_in_the_middle_of_a_snapshot() {
    let (mut vmm, scratch) = booted(PATTERN, &["5:crash-halfway"]);
    done(&mut vmm, r#"PATCH /vm {"state":"Paused"}"#);
    say(&mut vmm, &create(&scratch)).expect("a request");
    assert_eq!(vmm.wait().expect("an end"), "signal 11");
    assert!(scratch.path.join("state").exists());
    assert_eq!(fs::metadata(scratch.path.join("memory")).expect("a partial file").len(), 128 << 20);
}

#[test]
fn a_stalled_vmm_answers_nobody() {
    let (mut vmm, _scratch) = simulator(&["1:stall"]);
    say(&mut vmm, "GET /").expect("a request");
    vmm.connect().expect("another connection");
    say(&mut vmm, "GET /").expect("a request");
    assert!(vmm.receive_raw(None).expect("an open connection").expect("an open connection").is_empty());
    vmm.signal("SIGTERM").expect("a signal");
    assert_eq!(vmm.wait().expect("an end"), "signal 15");
}

/// What comes with a handshake that is none.
fn handshake(kind: &str) -> Option<(String, Option<OwnedFd>)> {
    let scratch = snapshot(PATTERN);
    let listener = UnixListener::bind(scratch.path.join("pager")).expect("a socket");
    let mut vmm = restorer(&scratch, &format!("1:handshake={kind}"));
    say(&mut vmm, &load(&scratch, "Uffd", "pager")).expect("a request");
    let (stream, _) = listener.accept().expect("a connection");
    if kind == "mute" {
        return None;
    }
    let mut buffer = [0; 4096];
    let (length, descriptor) = next_message(&UnixConnection::from(stream), &mut buffer)?;
    Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), descriptor))
}

#[test]
fn a_page_fault_handler_can_be_told_nonsense() {
    if !may_serve() {
        return;
    }
    let said = |kind: &str| handshake(kind).expect("a message");
    assert!(matches!(said("garbage"), (text, Some(_)) if text == "these are no regions"));
    assert!(matches!(said("bare"), (text, None) if text.contains("\"size\":134217728,")));
    assert!(
        matches!(said("half"), (text, Some(_)) if text.starts_with("[{\"base_host") && !text.ends_with(']'))
    );
    assert!(matches!(said("narrow"), (text, Some(_)) if text.contains("\"size\":67108864,")));
    assert!(handshake("mute").is_none());
}

#[test]
fn a_storm_of_faults_is_served_to_all_its_threads() {
    if !may_serve() {
        return;
    }
    let scratch = snapshot("fill 40 42\nsay filled\nawait\nstorm 16 39 43\ncheck 40 42\nback 3");
    let _pager = Pager::start(&scratch.path.join("pager"), &scratch.path.join("memory")).expect("a pager");
    let mut vmm = restorer(&scratch, "9:drop");
    done(&mut vmm, &load(&scratch, "Uffd", "pager"));
    done(&mut vmm, r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#);
    see(&scratch.path.join("stdout"), "\nok\n").expect("all pages are there");
}

#[test]
fn what_a_balloon_took_reads_as_zeros_even_where_page_faults_are_served() {
    if !may_serve() {
        return;
    }
    let top = "drivers\nfill 120 128\nsay filled\nawait\ncheck 120 128\nback 2";
    let scratch = snapshot(top);
    for kind in ["File", "Uffd"] {
        let _former = fs::remove_file(scratch.path.join("stdout"));
        let pager = scratch.path.join("pager");
        let _pager = Pager::start(&pager, &scratch.path.join("memory")).expect("a pager");
        let mut vmm = restorer(&scratch, "9:drop");
        done(&mut vmm, &load(&scratch, kind, if kind == "File" { "memory" } else { "pager" }));
        done(&mut vmm, r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#);
        see(&scratch.path.join("stdout"), "\nok\n").expect("all is there");
        done(&mut vmm, r#"PATCH /balloon {"amount_mib":4}"#);
        let (_, statistics) = ask(&mut vmm, "GET /balloon/statistics");
        assert!(statistics.contains(r#""actual_mib":4"#), "{statistics}");
        done(&mut vmm, r#"PATCH /balloon {"amount_mib":0}"#);
        done(&mut vmm, r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#);
        see(&scratch.path.join("stdout"), "\nbad\n").expect("what was given back is zeros");
    }
}

#[test]
fn an_older_release_makes_and_loads_older_snapshots() {
    let (mut vmm, scratch) = booted(PATTERN, &["0:version=1.8.0"]);
    done(&mut vmm, r#"PATCH /vm {"state":"Paused"}"#);
    let diff = create(&scratch).replace('}', r#","snapshot_type":"Diff"}"#);
    let (status, body) = ask(&mut vmm, &diff);
    assert!(
        status == 400 && body.contains("not allowed on uVMs with dirty page tracking disabled"),
        "{body}"
    );
    done(&mut vmm, &create(&scratch));
    let mut same = restorer(&scratch, "0:version=1.8.0");
    let tracked = load(&scratch, "File", "memory").replace("\"resume_vm\"", "\"track_dirty_pages\"");
    let (status, body) = ask(&mut same, &tracked);
    assert!(status == 400 && body.contains("unknown field `track_dirty_pages`, expected one of"), "{body}");
    done(&mut same, &load(&scratch, "File", "memory"));
    let mut newer = restorer(&scratch, "0:version=1.12.1");
    let (status, body) = ask(&mut newer, &load(&scratch, "File", "memory"));
    assert!(status == 400 && body.contains("Failed to load snapshot state from file"), "{body}");
    assert_eq!(newer.wait().expect("an end"), "1");
}

#[test]
fn a_file_of_another_kind_of_state_is_no_snapshot() -> io::Result<()> {
    let scratch = snapshot(PATTERN);
    let whole = fs::read(scratch.path.join("state"))?;
    for (contents, reason) in [
        (whole[..whole.len() / 2].to_vec(), "bitcode error"),
        (
            [&whole[..whole.len() / 2], b"#", &whole[whole.len() / 2 + 1..]].concat(),
            "CRC64 validation failed",
        ),
        (whole.repeat(20_000), "Snapshot size exceeds limit of 10000000 bytes"),
    ] {
        fs::write(scratch.path.join("state"), contents)?;
        let mut vmm = restorer(&scratch, "9:drop");
        let (status, body) = ask(&mut vmm, &load(&scratch, "File", "memory"));
        assert!(status == 400 && body.contains(reason), "{body}");
        assert_eq!(vmm.wait().expect("an end"), "1");
    }
    Ok(())
}

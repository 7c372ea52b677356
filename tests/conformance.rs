//! Holds the same conversations with `firecracker-sim` and, when `MVM_TEST_FIRECRACKER` names one, with the
//! real Firecracker: the simulator is only worth what this test says.
//!
//! The conversations stand in `tests/conformance/*.txt`. Their answers are the real one's: with
//! `MVM_CONFORMANCE_RECORD=1` they are not compared but written down as it gives them.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "conformance/conversation.rs"]
mod conversation;
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
#[path = "common/guest.rs"]
mod guest;
#[path = "conformance/jail.rs"]
mod jail;
#[path = "conformance/misbehaviour.rs"]
mod misbehaviour;
#[path = "conformance/mishaps.rs"]
mod mishaps;
#[path = "conformance/pager.rs"]
mod pager;
#[path = "conformance/vmm.rs"]
mod vmm;

use conversation::{Conversation, Line, escape, matches, unescape};
use mvm::sys::sparse::data_extents;
use mvm::sys::userfault::Userfault;
use pager::Pager;
use vmm::{Home, Scratch, Vmm, see};

/// The answers were recorded from this one.
const RECORDED: &str = "Firecracker v1.16.1";

#[derive(Default)]
struct Tally {
    conversations: usize,
    exchanges: usize,
    facts: usize,
    skipped: usize,
}

/// Conversations held with one VMM.
struct Holder {
    program: PathBuf,
    is_real: bool,
    is_recording: bool,
    tally: Tally,
    failures: Vec<String>,
}

#[test]
fn the_simulator_holds_every_conversation_as_it_was_recorded() {
    let mut holder = Holder::new(PathBuf::from(env!("CARGO_BIN_EXE_firecracker-sim")));
    holder.hold_all();
    holder.report("the simulator");
    assert!(holder.failures.is_empty(), "{}", holder.failures.join("\n"));
}

#[test]
#[ignore = "needs Firecracker 1.16.1 in MVM_TEST_FIRECRACKER, and /dev/kvm"]
fn the_real_firecracker_holds_every_conversation_as_it_was_recorded() {
    let program = std::env::var_os("MVM_TEST_FIRECRACKER").expect("MVM_TEST_FIRECRACKER names a Firecracker");
    let version = Command::new(&program).arg("--version").output().expect("MVM_TEST_FIRECRACKER can be run");
    let version = String::from_utf8_lossy(&version.stdout);
    let version = version.lines().next().unwrap_or_default();
    assert_eq!(version, RECORDED, "the conversations were recorded from another version");
    assert!(has("kvm"), "/dev/kvm cannot be opened");
    let mut holder = Holder::new(program.into());
    holder.is_real = true;
    holder.is_recording = std::env::var_os("MVM_CONFORMANCE_RECORD").is_some();
    holder.hold_all();
    holder.report(version);
    assert!(holder.failures.is_empty(), "{}", holder.failures.join("\n"));
}

impl Holder {
    fn new(program: PathBuf) -> Self {
        Self { program, is_real: false, is_recording: false, tally: Tally::default(), failures: Vec::new() }
    }

    /// A simulator is its own.
    fn jailer(&self) -> PathBuf {
        if self.is_real { self.program.with_file_name("jailer") } else { self.program.clone() }
    }

    fn hold_all(&mut self) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
        let entries = fs::read_dir(directory).expect("the conversations are there");
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.expect("a readable directory").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).expect("a readable file");
            let conversations =
                Conversation::parse_all(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut written: Vec<String> = text.lines().map(str::to_owned).collect();
            for conversation in conversations {
                self.hold_one(&file, &conversation, &mut written);
            }
            if self.is_recording {
                fs::write(&file, written.join("\n") + "\n").expect("a writable file");
            }
        }
    }

    fn hold_one(&mut self, file: &Path, conversation: &Conversation, written: &mut [String]) {
        let lacks_something = conversation.lines.iter().any(|(_, line)| match line {
            Line::Needs(what) if what == "jailer" => !self.jailer().exists(),
            Line::Needs(what) => (self.is_real || is_the_simulators_need(what)) && !has(what),
            _ => false,
        });
        if lacks_something {
            self.tally.skipped += 1;
            return;
        }
        self.tally.conversations += 1;
        if let Err((line, reason)) = self.hold(conversation, written) {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            self.failures.push(format!(
                "{file}:{line}: {} ({}): {reason}",
                conversation.name, conversation.line_number
            ));
        }
    }

    fn hold(&mut self, conversation: &Conversation, written: &mut [String]) -> Result<(), (usize, String)> {
        let mut scratch = Scratch::new().map_err(|error| (conversation.line_number, error.to_string()))?;
        let mut arguments = vec!["--api-sock".to_owned(), scratch.fill_in("{dir}/api")];
        let mut program = self.program.clone();
        let mut home = Home::Ours;
        let mut running: Option<Vmm> = None;
        let mut pager: Option<Pager> = None;
        let mut lines: VecDeque<&(usize, Line)> = conversation.lines.iter().collect();
        while let Some((number, line)) = lines.pop_front() {
            let at = |reason: String| (*number, reason);
            match line {
                Line::Arguments { only, words } => {
                    if *only {
                        arguments.clear();
                    }
                    arguments.extend(words.split_whitespace().map(|word| scratch.fill_in(word)));
                }
                Line::Jailer { usual, words } => {
                    program = scratch.path.join("jailer");
                    let set_up = jail::set_up(&scratch, &self.program, &self.jailer());
                    set_up.map_err(|error| at(error.to_string()))?;
                    arguments = jail::arguments(*usual, words);
                    arguments.iter_mut().for_each(|word| *word = scratch.fill_in(word));
                }
                Line::NetworkNamespace => {
                    scratch.make_network_namespace().map_err(|error| at(error.to_string()))?;
                }
                Line::InPidNamespace => home = Home::NewPids,
                Line::Restart => running = None,
                Line::Serve(path, memory) => {
                    let (path, memory) = (scratch.fill_in(path), scratch.fill_in(memory));
                    let serving = Pager::start(Path::new(&path), Path::new(&memory));
                    pager = Some(serving.map_err(|error| at(error.to_string()))?);
                }
                Line::Told(_) => {
                    self.tally.facts += 1;
                    let told = pager.as_ref().ok_or_else(|| at("nobody serves".to_owned()))?.told();
                    let told = told.map_err(|error| at(error.to_string()))?;
                    self.compare(line, Some(format!("told {told}")), &mut written[*number - 1])
                        .map_err(at)?;
                }
                line if line.is_preparation() => {
                    prepare(line, &scratch).map_err(|error| at(error.to_string()))?;
                }
                line => {
                    let vmm = match &mut running {
                        Some(vmm) => vmm,
                        None => {
                            let started = Vmm::start(&program, &scratch, &arguments, home);
                            running.insert(started.map_err(|error| at(error.to_string()))?)
                        }
                    };
                    let seen = self.exchange(line, vmm, &scratch).map_err(at)?;
                    self.compare(line, seen, &mut written[*number - 1]).map_err(at)?;
                }
            }
        }
        Ok(())
    }

    /// Says it, or looks at it; what is seen is the line as it should stand in the file.
    fn exchange(&mut self, line: &Line, vmm: &mut Vmm, scratch: &Scratch) -> Result<Option<String>, String> {
        let told = |error: io::Error| error.to_string();
        let speaks = matches!(line, Line::Request(_) | Line::RawRequest(_));
        if matches!(line, Line::Connect) || (speaks && !vmm.has_stream()) {
            vmm.connect().map_err(told)?;
        }
        match line {
            Line::Request(request) => vmm.send(&as_http(&scratch.fill_in(request))).map_err(told)?,
            Line::RawRequest(bytes) => vmm.send(&unescape(&scratch.fill_in(bytes))).map_err(told)?,
            Line::Answer(_) => {
                let answer = vmm.receive()?;
                let deprecated = if answer.is_deprecated { " deprecated" } else { "" };
                let body = answer.body.replace('\n', "\\n");
                let seen = format!("< {}{deprecated} {}", answer.status, scratch.abstracted(&body));
                self.tally.exchanges += 1;
                return Ok(Some(seen.trim_end().to_owned()));
            }
            Line::RawAnswer(expected) => {
                let length = (!self.is_recording && expected != "closed").then(|| unescape(expected).len());
                let bytes = vmm.receive_raw(length).map_err(told)?;
                self.tally.exchanges += 1;
                return Ok(Some(format!("<< {}", bytes.map_or("closed".to_owned(), |bytes| escape(&bytes)))));
            }
            Line::Signal(name) => vmm.signal(name).map_err(told)?,
            Line::End(_) => {
                self.tally.facts += 1;
                return Ok(Some(format!("ends {}", vmm.wait()?)));
            }
            Line::See(path, text) => {
                self.tally.facts += 1;
                let text = String::from_utf8_lossy(&unescape(&scratch.fill_in(text))).into_owned();
                see(Path::new(&scratch.fill_in(path)), &text)?;
            }
            Line::Lack(path, text) => {
                self.tally.facts += 1;
                let contents = fs::read(scratch.fill_in(path)).map_err(told)?;
                let contents = String::from_utf8_lossy(&contents).into_owned();
                if contents.contains(&*String::from_utf8_lossy(&unescape(text))) {
                    return Err(format!("{path} has {text:?} in it: {contents}"));
                }
            }
            Line::Long(path, bytes) => {
                self.tally.facts += 1;
                let length = fs::metadata(scratch.fill_in(path)).map_err(told)?.len();
                if length != *bytes {
                    return Err(format!("{path} is {length} bytes long"));
                }
            }
            Line::Fill(path, least, most) => {
                self.tally.facts += 1;
                let file = File::open(scratch.fill_in(path)).map_err(told)?;
                let extents = data_extents(&file).map_err(told)?;
                let data = extents.iter().map(|extent| extent.end - extent.start).sum::<u64>();
                if !(*least..=*most).contains(&data) {
                    return Err(format!("{path} has {data} bytes of data"));
                }
            }
            Line::Follow => vmm.follow(&scratch.fill_in("{root}/firecracker.pid"))?,
            Line::Is(path) => return self.fact("is", path, jail::appearance(&scratch.fill_in(path))),
            Line::List(path) => return self.fact("lists", path, jail::names_in(&scratch.fill_in(path))),
            Line::Status(field) => return self.fact("status", field, jail::status(vmm.pid(), field)),
            Line::Limit(name) => return self.fact("limit", name, jail::limit(vmm.pid(), name)),
            Line::Network => return self.fact("network", "", jail::network(vmm.pid(), scratch)),
            Line::Cgroup(controller) => {
                let cgroup = jail::cgroup(vmm.pid(), controller).map(|path| scratch.abstracted(&path));
                return self.fact("cgroup", controller, cgroup);
            }
            Line::Mounts => return self.fact("mounts", "", jail::mounts(vmm.pid())),
            Line::Inherits => return self.fact("inherits", "", jail::inherited(vmm.pid(), scratch)),
            Line::There(path) | Line::Gone(path) => {
                self.tally.facts += 1;
                let is_there = Path::new(&scratch.fill_in(path)).symlink_metadata().is_ok();
                if is_there != matches!(line, Line::There(_)) {
                    return Err(format!("{path} is {}there", if is_there { "" } else { "not " }));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// A line as it should stand in the file.
    fn fact(&mut self, word: &str, about: &str, seen: io::Result<String>) -> Result<Option<String>, String> {
        self.tally.facts += 1;
        let seen = seen.map_err(|error| format!("{about}: {error}"))?;
        let parts = [word, about, &seen].into_iter().filter(|part| !part.is_empty());
        Ok(Some(parts.collect::<Vec<_>>().join(" ")))
    }

    fn compare(&self, line: &Line, seen: Option<String>, written: &mut String) -> Result<(), String> {
        let Some(seen) = seen else { return Ok(()) };
        // A raw answer may hold stars of its own.
        let as_expected = match line {
            Line::RawAnswer(_) => *written == seen,
            _ => matches(written, &seen),
        };
        if as_expected {
            return Ok(());
        }
        if self.is_recording {
            *written = seen;
            return Ok(());
        }
        Err(format!("\n  expected {written}\n  but got  {seen}"))
    }

    fn report(&self, name: &str) {
        let Tally { conversations, exchanges, facts, skipped } = self.tally;
        say(&format!(
            "held with {name}: {exchanges} exchanges and {facts} facts in {conversations} conversations, {} \
             failed, {skipped} skipped",
            self.failures.len()
        ));
    }
}

impl Line {
    fn is_preparation(&self) -> bool {
        matches!(
            self,
            Self::Needs(_)
                | Self::Sized(..)
                | Self::Text(..)
                | Self::Flip(_)
                | Self::Remove(_)
                | Self::Folder(_)
                | Self::Own(..)
                | Self::Copy(..)
                | Self::SymbolicLink(..)
                | Self::HardLink(..)
        )
    }
}

fn prepare(line: &Line, scratch: &Scratch) -> io::Result<()> {
    match line {
        Line::Sized(path, size) => File::create(scratch.fill_in(path))?.set_len(*size),
        Line::Text(path, contents) => fs::write(scratch.fill_in(path), scratch.fill_in(contents)),
        Line::Remove(path) => fs::remove_file(scratch.fill_in(path)),
        Line::Own(path, uid) => chown(scratch.fill_in(path), Some(*uid), None),
        Line::Folder(path) => fs::create_dir_all(scratch.fill_in(path)),
        Line::Copy(from, to) => fs::copy(scratch.fill_in(from), scratch.fill_in(to)).map(drop),
        Line::SymbolicLink(path, target) => symlink(scratch.fill_in(target), scratch.fill_in(path)),
        Line::HardLink(path, file) => fs::hard_link(scratch.fill_in(file), scratch.fill_in(path)),
        Line::Flip(path) => {
            let path = scratch.fill_in(path);
            let mut contents = fs::read(&path)?;
            if let Some(last) = contents.last_mut() {
                *last ^= 1;
            }
            fs::write(path, contents)
        }
        _ => Ok(()),
    }
}

/// `METHOD PATH BODY`, with a length only where there is a body.
fn as_http(request: &str) -> Vec<u8> {
    let mut words = request.splitn(3, ' ');
    let (method, path, body) =
        (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    let body = body.map_or("\r\n".to_owned(), |body| format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    (head + &body).into_bytes()
}

/// What the simulator has to have of the real thing, it cannot do without either.
fn is_the_simulators_need(what: &str) -> bool {
    matches!(what, "userfaultfd" | "huge-pages" | "userfaultfd-device" | "root" | "cgroups-v1" | "cgroups-v2")
}

fn has(what: &str) -> bool {
    let device = match what {
        "userfaultfd" => return Userfault::new().is_ok(),
        "userfaultfd-device" => "/dev/userfaultfd",
        "cgroups-v1" => return jail::hierarchy_of("cpu").is_some(),
        "cgroups-v2" => return jail::hierarchy_of("").is_some(),
        "root" => return jail::may_be_made(),
        "huge-pages" => return free_huge_pages() >= HUGE_PAGES,
        "kvm" => "/dev/kvm",
        "tun" => "/dev/net/tun",
        _ => panic!("nobody knows how to look for {what}"),
    };
    File::options().read(true).write(true).open(device).is_ok()
}

/// As many as a conversation takes, with some to spare.
const HUGE_PAGES: u64 = 60;

fn free_huge_pages() -> u64 {
    let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// The test harness keeps what is printed to itself; this is for whoever runs it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "conformance: {text}");
}

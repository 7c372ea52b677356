//! Firecracker's own example handlers of page faults beside the pager, under a guest that reads all it has ever written.

use super::{Bare, BareVmm, compare, median, timed};
use crate::common::guest::Guest;
use crate::common::{Host, console_with, eventually};
use mvm::Vm;
use mvm::firecracker::http::{Method, RequestPath};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 9;
const ASK: &str = r#"{"action_type":"SendCtrlAltDel"}"#;

/// The two that `examples` holds, each beside the pager that does the like.
pub fn beside(examples: &Path, host: &Host, bare: &Bare) {
    let one_by_one = examples.join("uffd_on_demand_handler");
    let at_once = examples.join("uffd_fault_all_handler");
    let in_order = Reading::of(Guest::Scan, host, bare);
    in_order.row("64 MiB read page after page", &json!({}), &one_by_one);
    in_order.row("one page for each fault", &json!({ "fault_around_bytes": 0 }), &one_by_one);
    in_order.row("the whole memory streamed", &json!({ "ahead": "everything" }), &at_once);
    let scattered = Reading::of(Guest::Scatter, host, bare);
    scattered.row("64 MiB read in random order", &json!({}), &one_by_one);
    scattered.record();
    scattered.row("the same, replayed", &json!({ "ahead": "working_set" }), &one_by_one);
}

/// A snapshot of a guest that has filled 64 MiB of its 128, and reads them when it is asked to.
struct Reading<'a> {
    host: &'a Host,
    bare: &'a Bare,
    name: String,
    snapshot: PathBuf,
}

impl<'a> Reading<'a> {
    fn of(guest: Guest, host: &'a Host, bare: &'a Bare) -> Self {
        let vm = host.boot("source", guest);
        console_with(&vm, "filled\n");
        let name = format!("{guest:?}").to_lowercase();
        let report = host.runtime.take_snapshot(&vm, &name, None).unwrap();
        host.runtime.destroy(&vm).unwrap();
        Self { host, bare, name, snapshot: report["directory"].as_str().unwrap().into() }
    }

    /// From the restore until the guest has read everything, in turns.
    fn row(&self, what: &str, pager: &Value, handler: &Path) {
        let (mut library, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (vm, took) = timed(|| self.paged(pager));
            library.push(took);
            self.host.runtime.destroy(&vm).unwrap();
            let ((vmm, mut handler), took) = timed(|| self.handled(&format!("handled-{round}"), handler));
            plain.push(took);
            vmm.end();
            handler.kill().unwrap();
            handler.wait().unwrap();
        }
        compare(what, median(&mut library), median(&mut plain));
    }

    fn record(&self) {
        let vm = self.paged(&json!({ "record": {} }));
        assert!(vm.store_working_set().unwrap() > 0);
        self.host.runtime.destroy(&vm).unwrap();
    }

    fn paged(&self, pager: &Value) -> Arc<Vm> {
        let options = json!({ "memory": "pager", "pager": pager }).to_string();
        let vm = self.host.runtime.restore(&self.name, "paged", Some(&options)).unwrap();
        let path = RequestPath::parse("/actions").unwrap();
        vm.request(Method::Put, &path, Some(ASK.as_bytes())).unwrap();
        await_the_end(&self.host.vm_directory("paged"));
        vm
    }

    fn handled(&self, id: &str, handler: &Path) -> (BareVmm, Child) {
        let mut vmm = self.bare.spawn(id);
        let socket = vmm.directory.join("pages.sock");
        let memory = self.snapshot.join("memory");
        let handler = Command::new(handler).arg(&socket).arg(memory).stdout(Stdio::null()).spawn();
        eventually("the handler listens", || socket.exists());
        let backend = json!({ "backend_type": "Uffd", "backend_path": socket });
        let state = self.snapshot.join("state");
        let body = json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true });
        vmm.request("PUT", "/snapshot/load", &body.to_string());
        vmm.request("PUT", "/actions", ASK);
        await_the_end(&vmm.directory);
        (vmm, handler.unwrap())
    }
}

fn await_the_end(directory: &Path) {
    while !fs::read_to_string(directory.join("console.log")).unwrap_or_default().contains("ok\n") {
        std::thread::sleep(Duration::from_micros(200));
    }
}

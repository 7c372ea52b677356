//! The programs of the README, and of the header's first page, as a reader would build and run them: with the commands
//! that stand beside them. Only the places are replaced that every reader has to replace.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::{self, Guest};
use common::{Scratch, eventually, processes_below};
use mvm::Runtime;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

#[test]
fn the_first_c_program_runs_again_and_again() {
    let house = House::new();
    let program = house.build_c(&program_of(&readme(), "c"));
    house.assert_runs_again_and_again(&program);
}

#[test]
fn the_first_go_program_runs_again_and_again() {
    let house = House::new();
    let Some(program) = house.build_go(&program_of(&readme(), "go")) else { return };
    house.assert_runs_again_and_again(&program);
}

#[test]
fn what_the_readme_freezes_is_there_many_times() {
    let house = House::new();
    let program = house.build_c(&format!("{C_BEFORE}{}{C_AFTER}", fragment_of(&readme(), "c")));
    house.assert_has_many(&program, &["web-1", "web-2", "web-3"]);
}

#[test]
fn what_the_readme_freezes_in_go_is_there_many_times() {
    let house = House::new();
    let source = format!("{GO_BEFORE}{}{GO_AFTER}", fragment_of(&readme(), "go"));
    let Some(program) = house.build_go(&source) else { return };
    house.assert_has_many(&program, &["web-1", "web-3"]);
}

#[test]
fn the_program_on_the_headers_first_page_runs_again() {
    let house = House::new();
    let header = fs::read_to_string(tree().join("include/mvm.h")).unwrap();
    let (_, page) = header.split_once("A first program:\n *\n").unwrap();
    let lines = page.lines().map_while(|line| line.strip_prefix(" *     "));
    let body = lines.map(|line| format!("{line}\n")).collect::<String>();
    let program = house.build_c(&format!(
        "#include <mvm.h>\n#include <stdio.h>\nint main(void) {{\n{body}return outcome == MVM_SHUTDOWN_NONE;\n}}\n"
    ));
    for _ in 0..2 {
        house.run(&program);
        house.assert_nothing_left();
    }
}

/// What stands around a fragment: a VM that runs, and the question whether a call has failed.
const C_BEFORE: &str = r#"#include <mvm.h>
#include <stdio.h>
static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, mvm_last_error_message());
  return 1;
}
int main(void) {
mvm_runtime *runtime;
mvm_vm *vm;
if (mvm_runtime_open("/var/lib/mvm", "{\"firecracker\":\"/usr/bin/firecracker\"}", &runtime) ||
    mvm_create(runtime, "web-1", "{\"boot-source\":{\"kernel_image_path\":\"/srv/vmlinux\"}}", &vm) || mvm_start(vm))
  return failed("before");
"#;
const C_AFTER: &str = r#"
return restored == NULL || taken == NULL || clones[31] == NULL;
}
"#;

const GO_BEFORE: &str = r#"package main

import (
	"context"

	"github.com/microvm-runtime/microvm-runtime/go/mvm"
)

func main() {
	ctx := context.Background()
	runtime, err := mvm.Open("/var/lib/mvm", mvm.Options{Firecracker: "/usr/bin/firecracker"})
	if err != nil {
		panic(err)
	}
	vm, err := runtime.Create(ctx, "web-1", []byte(`{"boot-source":{"kernel_image_path":"/srv/vmlinux"}}`))
	if err != nil {
		panic(err)
	}
	if err := vm.Start(ctx); err != nil {
		panic(err)
	}
"#;
const GO_AFTER: &str = r#"
	if err != nil || report.ID == "" || len(workers) != 32 || next == nil {
		panic(err)
	}
}
"#;

/// A source tree with a library that is built, as a reader has it, and what else the reader has.
struct House {
    scratch: Scratch,
}

impl House {
    fn new() -> Self {
        let scratch = Scratch::new();
        let house = Self { scratch };
        let release = house.path().join("target/release");
        fs::create_dir_all(&release).unwrap();
        symlink(std::env::current_exe().unwrap().with_file_name("libmvm.so"), release.join("libmvm.so"))
            .unwrap();
        for part in ["include", "go"] {
            symlink(tree().join(part), house.path().join(part)).unwrap();
        }
        guest::write(house.path(), Guest::Obey);
        house.sh(house.path(), &command(&readme(), "ln "));
        house
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// With this test's places in it.
    fn furnished(&self, source: &str) -> String {
        let kernel = self.path().join("obey.elf");
        let places = [
            ("/var/lib/mvm", self.state()),
            ("/usr/bin/firecracker", common::firecracker()),
            ("/srv/vmlinux", kernel),
        ];
        places.into_iter().fold(source.to_owned(), |source, (theirs, ours)| {
            assert!(source.contains(theirs), "the program names {theirs}");
            source.replace(theirs, &ours.display().to_string())
        })
    }

    fn build_c(&self, source: &str) -> PathBuf {
        fs::write(self.path().join("first.c"), self.furnished(source)).unwrap();
        self.sh(self.path(), "cc -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude first.c");
        self.sh(self.path(), &command(&readme(), "cc "));
        self.path().join("first")
    }

    /// The program, where there is a Go to build it.
    fn build_go(&self, source: &str) -> Option<PathBuf> {
        if Command::new("go").arg("version").output().is_err() {
            eprintln!("skipped: go is not installed");
            return None;
        }
        let directory = self.path().join("first-go");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("first.go"), self.furnished(source)).unwrap();
        self.sh(&directory, &block_with(&readme(), "go build "));
        Some(directory.join("first"))
    }

    fn sh(&self, directory: &Path, commands: &str) {
        let mut sh = Command::new("sh");
        sh.args(["-e", "-c", commands]).current_dir(directory).env("LIBMVM", self.path());
        // What Go needs is here, and nothing is to be looked for elsewhere.
        succeed(sh.env("GOPROXY", "off").env("GOFLAGS", ""));
    }

    fn run(&self, program: &Path) -> String {
        let output = succeed(Command::new(program).current_dir(self.path()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn assert_runs_again_and_again(&self, program: &Path) {
        for _ in 0..2 {
            let printed = self.run(program);
            assert!(printed.contains("hello"), "{printed}");
            self.assert_nothing_left();
        }
        // It is killed while its VM runs, which outlives it.
        let killed = Killed(Command::new(program).stdout(Stdio::null()).spawn().unwrap());
        let console = self.state().join("vms/web-1/console.log");
        eventually("the guest prints", || fs::read(&console).is_ok_and(|text| !text.is_empty()));
        drop(killed);
        let printed = self.run(program);
        assert!(printed.contains("hello"), "{printed}");
        self.assert_nothing_left();
    }

    /// After the program there are `vms` and 32 workers, and all run.
    fn assert_has_many(&self, program: &Path, vms: &[&str]) {
        self.run(program);
        let runtime = Runtime::open(&self.state(), None).unwrap();
        let running = runtime.list().into_iter().filter(|vm| vm.info().unwrap()["state"] == "running");
        let running = running.map(|vm| vm.id().to_string()).collect::<BTreeSet<_>>();
        let workers = (1..=32).map(|number| format!("worker-{number}"));
        assert_eq!(running, workers.chain(vms.iter().map(ToString::to_string)).collect());
    }

    fn assert_nothing_left(&self) {
        assert_eq!(fs::read_dir(self.state().join("vms")).unwrap().count(), 0);
        eventually("no process is left", || processes_below(&self.state()).is_empty());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let Ok(runtime) = Runtime::open(&self.state(), None) else { return };
        for vm in runtime.list() {
            if let Err(error) = runtime.destroy(&vm) {
                eprintln!("cannot clean up: {error}");
            }
        }
    }
}

/// A program that is killed when this goes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(tree().join("README.md")).unwrap()
}

/// The text of each fenced block that is said to be in `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("\n```{language}\n");
    let blocks = text.split(&begin).skip(1);
    blocks.map(|block| block.split_once("\n```").unwrap().0.to_owned() + "\n").collect()
}

fn is_whole(block: &str) -> bool {
    ["int main(", "func main("].iter().any(|main| block.contains(main))
}

/// The one whole program in `language`.
fn program_of(text: &str, language: &str) -> String {
    let mut programs = blocks(text, language).into_iter().filter(|block| is_whole(block));
    programs.next().filter(|_| programs.next().is_none()).unwrap()
}

/// The one fragment in `language`. So there is no block that is not tried.
fn fragment_of(text: &str, language: &str) -> String {
    let mut fragments = blocks(text, language).into_iter().filter(|block| !is_whole(block));
    fragments.next().filter(|_| fragments.next().is_none()).unwrap()
}

/// The block of commands of which one begins with `beginning`.
fn block_with(text: &str, beginning: &str) -> String {
    let mut blocks = blocks(text, "sh").into_iter();
    blocks.find(|block| block.lines().any(|line| line.starts_with(beginning))).unwrap()
}

/// The one command that begins with `beginning`.
fn command(text: &str, beginning: &str) -> String {
    let block = block_with(text, beginning);
    block.lines().find(|line| line.starts_with(beginning)).unwrap().to_owned()
}

fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

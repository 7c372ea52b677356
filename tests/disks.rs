//! Disks that the library provides: copies of images, and images that are shared, on the VMM under test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{Host, Scratch, eventually, script, told};
use mvm::{ReapOptions, Vm};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A host with a catalogue of two images: `raw`, and `linux` with a file system.
struct Site {
    host: Host,
    catalogue: Scratch,
}

impl Site {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    fn with(more: &Value) -> Self {
        let catalogue = Scratch::new();
        let mut options = json!({ "firecracker": common::firecracker(), "catalogue": catalogue.path() });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let site = Self { host: Host::with_options(options), catalogue };
        let raw = File::create_new(site.image("raw")).unwrap();
        raw.set_len(8 * MIB).unwrap();
        raw.write_all_at(&[7; 65_536], 4 * MIB).unwrap();
        site.describe("raw", "raw");
        let linux = File::create_new(site.image("linux")).unwrap();
        linux.set_len(8 * MIB).unwrap();
        ran("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &site.image("linux")]);
        site.describe("linux", "ext4");
        site
    }

    fn image(&self, name: &str) -> PathBuf {
        self.catalogue.path().join(name.to_owned() + ".img")
    }

    /// Writes the manifest of an image.
    fn describe(&self, name: &str, format: &str) {
        let bytes = fs::metadata(self.image(name)).unwrap().len();
        let manifest = json!({ "name": name, "image": format!("{name}.img"), "bytes": bytes, "format": format,
            "sha256": sha256(&self.image(name)) });
        fs::write(self.catalogue.path().join(name.to_owned() + ".json"), manifest.to_string()).unwrap();
    }

    fn spec(&self, rootfs: &Value) -> Value {
        let mut spec = self.host.spec(Guest::Halt);
        spec["mvm"]["rootfs"] = rootfs.clone();
        spec
    }

    fn create(&self, id: &str, rootfs: &Value) -> Arc<Vm> {
        self.host.runtime.create(id, &self.spec(rootfs).to_string()).unwrap()
    }

    /// Why it cannot be created; nothing is left of it.
    fn refusal(&self, rootfs: &Value) -> String {
        let text = told(&self.host.runtime.create("refused", &self.spec(rootfs).to_string()).unwrap_err());
        self.host.assert_nothing_left();
        text
    }

    /// The file that the VMM has as its root disk.
    fn disk(&self, id: &str) -> PathBuf {
        self.host.names(id).join("drives/rootfs")
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap().stdout;
    String::from_utf8(output[..64].to_vec()).unwrap()
}

/// Runs a program of e2fsprogs.
fn ran(program: &str, arguments: &[&Path]) -> String {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output = Command::new(program).env("PATH", path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The guest has written to its disk.
fn write_to(disk: &Path, text: &str) {
    File::options().write(true).open(disk).unwrap().write_all_at(text.as_bytes(), 0).unwrap();
}

fn beginning_of(disk: &Path) -> String {
    let mut bytes = [0; 5];
    File::open(disk).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn each_vm_has_a_copy_of_its_own_which_it_keeps_over_restarts_and_takes_with_it() {
    let mut site = Site::new();
    let before = sha256(&site.image("raw"));
    let rootfs = json!({ "template": "raw", "verify": "sha256" });
    let (one, two) = (site.create("one", &rootfs), site.create("two", &rootfs));
    for (vm, id) in [(&one, "one"), (&two, "two")] {
        vm.start().unwrap();
        let about = site.disk(id).symlink_metadata().unwrap();
        assert!(about.is_file() && about.len() == 8 * MIB && about.blocks() * 512 < MIB);
        assert_eq!((about.mode() & 0o777, sha256(&site.disk(id))), (0o600, before.clone()));
        write_to(&site.disk(id), id);
    }
    one.kill().unwrap();
    one.start().unwrap();
    one.kill().unwrap();
    drop((one, two));
    site.host.change_owner();
    let one = site.host.runtime.vm("one").unwrap();
    // What the catalogue says by now changes nothing.
    fs::remove_file(site.catalogue.path().join("raw.json")).unwrap();
    one.start().unwrap();
    assert_eq!(
        (beginning_of(&site.disk("one")), beginning_of(&site.disk("two"))),
        ("one\0\0".into(), "two\0\0".into())
    );
    assert_eq!(sha256(&site.image("raw")), before);
    site.host.runtime.destroy(&one).unwrap();
    site.host.runtime.destroy(&site.host.runtime.vm("two").unwrap()).unwrap();
    site.host.assert_nothing_left();
}

#[test]
fn many_vms_read_one_image_and_nothing_is_copied() {
    let site = Site::new();
    let rootfs = json!({ "template": "raw", "read_only": true, "verify": "sha256" });
    for id in ["one", "two"] {
        site.create(id, &rootfs).start().unwrap();
        assert_eq!(fs::read_link(site.disk(id)).unwrap(), site.image("raw"));
    }
    // Nobody gets it to write to meanwhile, and what was changed is not booted.
    let text = told(
        &site
            .host
            .runtime
            .create("writer", &{
                let mut spec = site.host.spec(Guest::Halt);
                spec["drives"] =
                    json!([{ "drive_id": "a", "is_root_device": false, "path_on_host": site.image("raw") }]);
                spec.to_string()
            })
            .unwrap_err(),
    );
    assert!(text.contains("is used by VM"), "{text}");
    let one = site.host.runtime.vm("one").unwrap();
    one.kill().unwrap();
    write_to(&site.image("raw"), "other");
    let text = told(&one.start().unwrap_err());
    assert!(text.contains("is not the image that it should be"), "{text}");
    assert!(site.host.runtime.create("three", &site.spec(&rootfs).to_string()).is_err());
}

#[test]
fn a_disk_is_grown_with_its_file_system_and_the_template_is_not() {
    let site = Site::new();
    let before = sha256(&site.image("linux"));
    let vm = site.create("grown", &json!({ "template": "linux", "size_mib": 300 }));
    assert_eq!(fs::metadata(site.disk("grown")).unwrap().len(), 300 * MIB);
    let superblock = ran("dumpe2fs", &["-h".as_ref(), &site.disk("grown")]);
    let number = |key: &str| {
        let line = superblock.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(number("Block count:") * number("Block size:"), 300 * MIB);
    ran("e2fsck", &["-fn".as_ref(), &site.disk("grown")]);
    assert_eq!(sha256(&site.image("linux")), before);
    vm.start().unwrap();
    site.host.runtime.destroy(&vm).unwrap();
    let longer = site.create("longer", &json!({ "template": "raw", "size_mib": 20 }));
    assert_eq!(fs::metadata(site.disk("longer")).unwrap().len(), 20 * MIB);
    site.host.runtime.destroy(&longer).unwrap();
    for (rootfs, told) in [
        (json!({ "template": "linux", "size_mib": 7 }), "disks are only grown"),
        (json!({ "template": "raw", "size_mib": 20, "format": "ext4" }), "holds no ext4 file system"),
    ] {
        let text = site.refusal(&rootfs);
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn a_growth_that_fails_is_never_taken_for_done() {
    let tools = Scratch::new();
    symlink("/usr/sbin/e2fsck", tools.path().join("e2fsck")).unwrap();
    let site = Site::with(&json!({ "tools": tools.path() }));
    let rootfs = json!({ "template": "linux", "size_mib": 64 });
    let text = site.refusal(&rootfs);
    let advice = ["resize2fs was not found", "install e2fsprogs"];
    assert!(advice.iter().all(|advice| text.contains(advice)), "{text}");
    script(tools.path(), "resize2fs", "echo 'the disk has died'; exit 1");
    let text = site.refusal(&rootfs);
    assert!(
        text.contains("resize2fs has failed (exit code 1)") && text.contains("the disk has died"),
        "{text}"
    );
    // One that does nothing at all and is content with it.
    script(tools.path(), "resize2fs", "exit 0");
    assert!(site.refusal(&rootfs).contains("resize2fs has failed"));
    script(tools.path(), "resize2fs", "test -z \"$HOME\" && exec /usr/sbin/resize2fs \"$@\"");
    site.create("grown", &rootfs);
    let superblock = ran("dumpe2fs", &["-h".as_ref(), &site.disk("grown")]);
    assert!(superblock.contains("Block count:              65536"), "{superblock}");
}

#[test]
fn a_program_that_hangs_ends_with_the_call() {
    let tools = Scratch::new();
    symlink("/usr/sbin/resize2fs", tools.path().join("resize2fs")).unwrap();
    script(
        tools.path(),
        "e2fsck",
        &format!("echo x > {}/began; sleep 1000 & sleep 1000", tools.path().display()),
    );
    let site = Site::with(&json!({ "tools": tools.path() }));
    let mut spec = site.spec(&json!({ "template": "linux", "size_mib": 64 }));
    spec["mvm"]["deadlines"] = json!({ "create_ms": 200 });
    let text = told(&site.host.runtime.create("slow", &spec.to_string()).unwrap_err());
    assert!(text.contains("within the limit of the call"), "{text}");
    site.host.assert_nothing_left();
    fs::remove_file(tools.path().join("began")).unwrap();
    spec["mvm"]["deadlines"] = json!({ "create_ms": 600_000 });
    std::thread::scope(|scope| {
        let creating =
            scope.spawn(|| told(&site.host.runtime.create("slow", &spec.to_string()).unwrap_err()));
        eventually("the program runs", || tools.path().join("began").exists());
        site.host.runtime.interrupt("slow").unwrap();
        let text = creating.join().unwrap();
        assert!(text.contains("interrupted"), "{text}");
    });
    site.host.assert_nothing_left();
}

#[test]
fn an_image_that_is_not_what_its_manifest_says_is_not_booted() {
    let site = Site::new();
    write_to(&site.image("raw"), "other");
    let text = site.refusal(&json!({ "template": "raw", "verify": "sha256" }));
    assert!(text.contains("is not the image that it should be"), "{text}");
    let digest = sha256(&site.image("raw"));
    site.create("by-path", &json!({ "from": site.image("raw"), "verify": "sha256", "digest": digest }));
    let vm = site.host.runtime.vm("by-path").unwrap();
    site.host.runtime.destroy(&vm).unwrap();
    // This file system has no fs-verity, or the file has none.
    let digest = format!("sha256:{digest}");
    let text = site.refusal(&json!({ "from": site.image("raw"), "verify": "fs_verity", "digest": digest }));
    assert!(text.contains("fs-verity"), "{text}");
}

#[test]
fn a_disk_is_kept_when_its_vm_is_destroyed_or_reaped() {
    let mut site = Site::new();
    let place = |site: &Site, name: &str| site.host.scratch.path().join(name);
    let kept = |site: &Site, id: &str| json!({ "template": "raw", "keep": place(site, id) });
    for id in ["one", "two"] {
        site.create(id, &kept(&site, id)).start().unwrap();
        write_to(&site.disk(id), id);
    }
    // What stands there is never overwritten.
    fs::write(place(&site, "one"), "precious").unwrap();
    let one = site.host.runtime.vm("one").unwrap();
    let text = told(&site.host.runtime.destroy(&one).unwrap_err());
    assert!(text.contains("keep the disk") && text.contains("exists"), "{text}");
    assert_eq!(fs::read_to_string(place(&site, "one")).unwrap(), "precious");
    fs::remove_file(place(&site, "one")).unwrap();
    site.host.runtime.destroy(&one).unwrap();
    assert_eq!(beginning_of(&place(&site, "one")), "one\0\0");
    drop(one);
    // The owner dies when it has moved the disk, and nothing else.
    site.host.runtime.vm("two").unwrap().kill().unwrap();
    site.host.change_owner();
    fs::rename(site.disk("two"), place(&site, "two")).unwrap();
    site.host.runtime.reap(ReapOptions::default()).unwrap();
    assert_eq!(beginning_of(&place(&site, "two")), "two\0\0");
    site.host.assert_nothing_left();
    // A VM that never came to be leaves nothing there.
    let mut spec = site.spec(&kept(&site, "three"));
    spec["boot-source"]["kernel_image_path"] = "/nowhere".into();
    site.host.runtime.create("three", &spec.to_string()).unwrap_err();
    assert!(!place(&site, "three").exists());
    for (at, told) in [
        (place(&site, "one"), "nothing is overwritten"),
        (PathBuf::from("/dev/shm/kept"), "another file system"),
        (place(&site, "state/vms/kept"), "a directory of your own"),
        (place(&site, "nowhere/kept"), "No such file"),
    ] {
        let text = site.refusal(&json!({ "template": "raw", "keep": at }));
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn nothing_that_a_vmm_has_put_in_the_place_of_its_disk_is_kept() {
    let site = Site::new();
    let (secret, kept) = (site.host.scratch.path().join("secret"), site.host.scratch.path().join("kept"));
    fs::write(&secret, "precious").unwrap();
    let vm = site.create("planted", &json!({ "template": "raw", "keep": kept }));
    vm.kill().unwrap();
    fs::rename(site.disk("planted"), site.host.scratch.path().join("away")).unwrap();
    symlink(&secret, site.disk("planted")).unwrap();
    site.host.runtime.destroy(&vm).unwrap();
    site.host.assert_nothing_left();
    assert!(kept.symlink_metadata().is_err());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "precious");
}

#[test]
fn a_restored_vm_and_clones_have_the_disk_of_the_snapshot_and_start_again_with_it() {
    let site = Site::new();
    let kept = site.host.scratch.path().join("kept");
    let vm = site.create("source", &json!({ "template": "raw", "keep": kept, "verify": "sha256" }));
    vm.start().unwrap();
    write_to(&site.disk("source"), "later");
    site.host.runtime.take_snapshot(&vm, "base", None).unwrap();
    site.host.runtime.destroy(&vm).unwrap();
    // Neither the template nor its catalogue is asked again.
    fs::remove_file(site.image("raw")).unwrap();
    let restored = site.host.runtime.restore("base", "again", None).unwrap();
    let clones = site.host.runtime.clone_vms("base", 2, None).unwrap();
    for vm in clones.iter().chain([&restored]) {
        let disk = site.disk(vm.id().as_str());
        assert_eq!(beginning_of(&disk), "later");
        write_to(&disk, "mine!");
        vm.kill().unwrap();
        vm.start().unwrap();
        assert_eq!(beginning_of(&disk), "mine!");
        site.host.runtime.destroy(vm).unwrap();
    }
    assert_eq!(beginning_of(&kept), "later");
    // The library's section can be another one without the disks being lost.
    let options = json!({ "mvm": { "shutdown": { "guest": "off" } } }).to_string();
    let other = site.host.runtime.restore("base", "other", Some(&options)).unwrap();
    other.kill().unwrap();
    other.start().unwrap();
    site.host.runtime.destroy(&other).unwrap();
    let options = json!({ "mvm": { "rootfs": { "template": "raw" } } }).to_string();
    let text = told(&site.host.runtime.restore("base", "refused", Some(&options)).unwrap_err());
    assert!(text.contains("mvm.rootfs") && text.contains("\"drives\""), "{text}");
    site.host.assert_nothing_left();
}

#[test]
fn each_member_of_a_pool_has_its_own_disk_and_only_those_taken_keep_it() {
    let mut site = Site::new();
    let kept = |id: &str| format!("{}/kept-{id}", site.host.scratch.path().display());
    let spec = site.spec(&json!({ "template": "raw", "keep": kept("{n}") }));
    let (first, second) = (kept("1"), kept("2"));
    let options = json!({ "spec": spec, "size": 2 }).to_string();
    let pool = site.host.runtime.open_pool("warm", &options).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 2);
    let vm = site.host.runtime.take(&pool, "web", None).unwrap();
    write_to(&site.disk("web"), "taken");
    site.host.runtime.destroy(&vm).unwrap();
    assert_eq!((beginning_of(Path::new(&first)), Path::new(&second).exists()), ("taken".into(), false));
    site.host.runtime.destroy_pool(&pool).unwrap();
    assert!(!Path::new(&second).exists());
    drop((vm, pool));
    // Members that were made from another image are not taken over.
    let member = |site: &Site| {
        let pool = site.host.runtime.open_pool("warm", &options.replace("kept-", "later-")).unwrap();
        eventually("it is full", || pool.info().unwrap()["ready"] == 2);
        let first =
            fs::read_dir(site.host.scratch.path().join("state/vms")).unwrap().next().unwrap().unwrap();
        let beginning = beginning_of(&site.disk(first.file_name().to_str().unwrap()));
        site.host.runtime.release_pool(&pool);
        beginning
    };
    assert_eq!(member(&site), "\0\0\0\0\0");
    site.host.change_owner();
    write_to(&site.image("raw"), "newer");
    site.describe("raw", "raw");
    assert_eq!(member(&site), "newer");
    let missing = json!({ "spec": site.spec(&json!({ "template": "missing" })) }).to_string();
    assert!(
        told(&site.host.runtime.open_pool("other", &missing).unwrap_err()).contains("no image \"missing\"")
    );
}

#[test]
fn what_is_no_file_is_no_image() {
    let site = Site::new();
    let at = |name: &str| site.host.scratch.path().join(name);
    symlink("/etc/passwd", at("link")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    ran("mkfifo", &[&at("fifo")]);
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    for (from, told) in [
        (at("link"), "name the file itself"),
        (at("directory"), "not a regular file"),
        (at("fifo"), "not a regular file"),
        (PathBuf::from("/dev/zero"), "not a regular file"),
        (at("missing"), "No such file"),
        (at("directory/../missing"), "No such file"),
    ] {
        let text = site.refusal(&json!({ "from": from }));
        assert!(text.contains(told), "{}: {text}", from.display());
    }
}

#[test]
fn a_disk_that_is_to_be_kept_does_not_leave_its_vm_before() {
    let mut site = Site::new();
    let kept = site.host.scratch.path().join("kept");
    let vm = site.create("web", &json!({ "template": "raw", "keep": kept }));
    vm.start().unwrap();
    write_to(&site.disk("web"), "data!");
    let text = told(&vm.update_drive("rootfs", Some(&site.image("linux")), None).unwrap_err());
    assert!(text.contains("is to be kept at"), "{text}");
    // Not even with a journal that nobody can read.
    drop(vm);
    site.host.without_owner_but(|host| fs::write(host.join("state/vms/web/journal.json"), "").unwrap());
    site.host.runtime.reap(ReapOptions { damaged: true, ..ReapOptions::default() }).unwrap();
    site.host.assert_nothing_left();
    assert_eq!(beginning_of(&kept), "data!");
}

/// Runs the test called `name`, which is ignored otherwise, with its temporary files on a new file system of its own. `make`
/// makes it in the file `$1`, and `prepare` is done in it once it is mounted.
#[allow(clippy::print_stderr)]
fn run_on(make: &str, prepare: &str, name: &str) {
    const SCRIPT: &str = r#"{ truncate -s 512M "$1" && eval "$3" && mount -o loop "$1" "$2" && cd "$2" && eval "$4"; } || exit 77
TMPDIR="$PWD/temporary" exec "$5" --exact "$6" --ignored --nocapture"#;
    let scratch = Scratch::new();
    let [image, mount_point] = ["image", "mount"].map(|name| scratch.path().join(name));
    fs::create_dir(&mount_point).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).args([&image, &mount_point]).args([make, prepare]);
    let ended = command.arg(std::env::current_exe().unwrap()).arg(name).output();
    match ended {
        Ok(ended) if ended.status.success() => {
            assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
        }
        // A test that fails answers 101.
        Ok(ended) if ended.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&ended.stderr)),
        refused => eprintln!("SKIPPED: no such file system to be had: {refused:?}"),
    }
}

#[test]
fn a_copy_takes_no_space_where_blocks_can_be_shared() {
    run_on("mkfs.xfs -q -m reflink=1 $1", "mkdir temporary", "on_a_file_system_with_reflinks");
}

#[test]
fn a_quota_that_is_used_up_leaves_nothing() {
    let limit = "btrfs quota enable . && btrfs subvolume create temporary && btrfs qgroup limit 4M temporary";
    run_on("mkfs.btrfs -q $1", limit, "on_a_file_system_with_a_quota");
}

/// Blocks in use, in bytes.
fn used(directory: &Path) -> u64 {
    let output = Command::new("stat").args(["-f", "-c", "%b %f %S"]).arg(directory).output().unwrap().stdout;
    let numbers = String::from_utf8(output).unwrap();
    let numbers = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect::<Vec<u64>>();
    (numbers[0] - numbers[1]) * numbers[2]
}

#[test]
#[ignore = "run by a_copy_takes_no_space_where_blocks_can_be_shared, on a file system of its own"]
fn on_a_file_system_with_reflinks() {
    let site = Site::new();
    let image = File::create(site.image("raw")).unwrap();
    image.write_all_at(&vec![7; 64 << 20], 0).unwrap();
    image.sync_all().unwrap();
    site.describe("raw", "raw");
    let before = (used(site.host.scratch.path()), sha256(&site.image("raw")));
    for id in ["one", "two", "three"] {
        site.create(id, &json!({ "template": "raw", "size_mib": 512 }));
        write_to(&site.disk(id), id);
        File::open(site.disk(id)).unwrap().sync_all().unwrap();
    }
    assert!(used(site.host.scratch.path()) - before.0 < 64 * MIB);
    assert_eq!(sha256(&site.image("raw")), before.1);
}

#[test]
#[ignore = "run by a_quota_that_is_used_up_leaves_nothing, on a file system of its own"]
fn on_a_file_system_with_a_quota() {
    let host = Host::new();
    // On another file system, so that no blocks are shared.
    let elsewhere = Scratch::at(Path::new(&format!("/dev/shm/mvm-test-{}", std::process::id())));
    let path = elsewhere.path().join("image");
    fs::write(&path, vec![7; 16 << 20]).unwrap();
    let mut spec = host.spec(Guest::Halt);
    // A jail would need more than the quota for its copy of Firecracker alone.
    spec["mvm"] = json!({ "rootfs": { "from": path } });
    let text = told(&host.runtime.create("web", &spec.to_string()).unwrap_err());
    assert!(text.contains("no space is left there") && text.contains("quota exceeded"), "{text}");
    host.assert_nothing_left();
    // There is room for a small one.
    fs::write(&path, [7; 65_536]).unwrap();
    host.runtime.create("web", &spec.to_string()).unwrap();
}

/// Where an owner of [`an_owner_that_is_killed_while_it_copies_leaves_no_half_disk`] keeps its VMs.
const SITE: &str = "MVM_TEST_DISKS";

#[test]
fn an_owner_that_is_killed_while_it_copies_leaves_no_half_disk() {
    let scratch = Scratch::new();
    let image = scratch.path().join("image");
    // Data and holes by turns, so that it takes many steps.
    let file = File::create(&image).unwrap();
    for at in (0..64 * MIB).step_by(16_384) {
        file.write_all_at(&[7; 8192], at).unwrap();
    }
    drop(file);
    let digest = sha256(&image);
    let vms = scratch.path().join("state/vms");
    let (mut half, mut whole) = (0, 0);
    for round in 0_u64..20 {
        let owner = Command::new(std::env::current_exe().unwrap())
            .args(["an_owner_that_copies", "--exact", "--ignored"])
            .env(SITE, scratch.path())
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut owner = owner.unwrap();
        // Some time after it has begun, and a different one each time.
        eventually("it copies", || vms.join(".copied.new").exists() || vms.join("copied").exists());
        std::thread::sleep(std::time::Duration::from_micros(round * 1_954));
        owner.kill().unwrap();
        owner.wait().unwrap();
        half += usize::from(vms.join(".copied.new").exists());
        let options = json!({ "firecracker": common::firecracker() }).to_string();
        let runtime = mvm::Runtime::open(&scratch.path().join("state"), Some(&options)).unwrap();
        assert!(!vms.join(".copied.new").exists(), "{}", runtime.report());
        if let Ok(vm) = runtime.vm("copied") {
            whole += 1;
            assert_eq!(sha256(&vms.join("copied/vmm/drives/rootfs")), digest);
            runtime.destroy(&vm).unwrap();
        }
        assert_eq!(fs::read_dir(&vms).unwrap().count(), 0);
    }
    assert!(half > 0, "none of 20 copies was cut off, and {whole} were whole");
}

#[test]
#[ignore = "run by an_owner_that_is_killed_while_it_copies_leaves_no_half_disk, which kills it"]
fn an_owner_that_copies() {
    let Some(scratch) = std::env::var_os(SITE).map(PathBuf::from) else { return };
    let options = json!({ "firecracker": common::firecracker() }).to_string();
    let runtime = mvm::Runtime::open(&scratch.join("state"), Some(&options)).unwrap();
    let kernel = common::guest::write(&scratch, Guest::Halt);
    let spec = json!({ "boot-source": { "kernel_image_path": kernel }, "mvm": { "rootfs": { "from": scratch.join("image") } } });
    runtime.create("copied", &spec.to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn an_image_that_a_running_guest_writes_to_is_not_copied() {
    let site = Site::new();
    let mut spec = site.host.spec(Guest::Halt);
    spec["drives"] = json!([{ "drive_id": "a", "is_root_device": false, "path_on_host": site.image("raw") }]);
    let writer = site.host.runtime.create("writer", &spec.to_string()).unwrap();
    let copy = site.spec(&json!({ "template": "raw" })).to_string();
    let text = told(&site.host.runtime.create("copy", &copy).unwrap_err());
    assert!(text.contains("mvm.disks.rootfs.from") && text.contains("is used by VM writer"), "{text}");
    writer.kill().unwrap();
    let vm = site.host.runtime.create("copy", &copy).unwrap();
    // The copy is its own: what becomes of the image does not matter to it.
    writer.start().unwrap();
    vm.start().unwrap();
}

#[test]
fn space_that_was_reserved_is_there_and_what_is_not_is_told_before_anything_is_copied() {
    let site = Site::new();
    let rootfs = json!({ "template": "linux", "size_mib": 64, "space": "reserved" });
    let created = site.host.runtime.create("roomy", &site.spec(&rootfs).to_string());
    // A file system that copies on write promises nothing.
    if let Err(error) = created {
        assert!(told(&error).contains("does not keep such promises"), "{}", told(&error));
        return;
    }
    assert!(fs::metadata(site.disk("roomy")).unwrap().blocks() * 512 >= 64 * MIB);
    ran("e2fsck", &["-fn".as_ref(), &site.disk("roomy")]);
    site.host.runtime.destroy(&site.host.runtime.vm("roomy").unwrap()).unwrap();
    let text = site.refusal(&json!({ "template": "raw", "size_mib": 1_u64 << 40, "space": "reserved" }));
    assert!(text.contains("are free there"), "{text}");
}

#[test]
fn no_id_of_a_device_leads_a_disk_out_of_its_vms_directory() {
    let site = Site::new();
    let before = fs::read_dir(site.host.scratch.path()).unwrap().count();
    let ids = ["../../../../escape", "/tmp/escape", "a/b", "", "\u{e4} b", &"long".repeat(1024), "a\r\nPUT"];
    let disks = ids.iter().map(|id| ((*id).to_owned(), json!({ "template": "raw" })));
    let mut spec = site.host.spec(Guest::Halt);
    spec["mvm"]["disks"] = disks.collect::<serde_json::Map<_, _>>().into();
    let vm = site.host.runtime.create("odd", &spec.to_string()).unwrap();
    vm.start().unwrap();
    assert_eq!(fs::read_dir(site.host.names("odd").join("drives")).unwrap().count(), ids.len());
    assert!(!Path::new("/tmp/escape").exists());
    site.host.runtime.destroy(&vm).unwrap();
    site.host.assert_nothing_left();
    // The kernel alone is new.
    assert_eq!(fs::read_dir(site.host.scratch.path()).unwrap().count(), before + 1);
}

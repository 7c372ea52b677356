//! Images from good archives and from hostile ones: what is in them is read by debugfs.

use super::*;
use flate2::write::GzEncoder;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};
use tar::{Builder, EntryType, Header};

/// A directory for one test, gone with it, with a catalogue in it.
struct Bench(PathBuf);

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mvm-image-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bench = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(bench.0.join("catalogue")).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn run(&self, source: &[&str]) -> Result<PathBuf, Problem> {
        let catalogue = self.at("catalogue");
        let always = ["--catalogue", catalogue.to_str().unwrap(), "--name", "made"];
        let arguments = always.iter().chain(source).map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let made = Order::parse(arguments.into_iter()).and_then(|order| carry_out(&order));
        // Whatever came of it, nothing half done stays.
        for entry in fs::read_dir(&catalogue).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.') && (made.is_ok() || name.ends_with(".img")), "{name}");
        }
        made
    }

    fn make_of_tar(&self, tar: &[u8]) -> Result<PathBuf, Problem> {
        fs::write(self.at("files.tar"), tar).unwrap();
        self.run(&["--tar", self.at("files.tar").to_str().unwrap()])
    }

    /// An OCI layout of these layers, each compressed.
    fn make_of_layers(&self, layers: &[Vec<u8>]) -> Result<PathBuf, Problem> {
        let layout = self.at("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let blob = |bytes: &[u8]| {
            let hex = hexadecimal(&Hash::hash(bytes));
            fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
            json!({ "digest": format!("sha256:{hex}"), "size": bytes.len() })
        };
        let compressed = layers.iter().map(|layer| {
            let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(layer).unwrap();
            blob(&gzip.finish().unwrap())
        });
        let manifest = json!({ "schemaVersion": 2, "layers": compressed.collect::<Vec<_>>() });
        let index = json!({ "manifests": [blob(manifest.to_string().as_bytes())] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        self.run(&["--oci", layout.to_str().unwrap()])
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An archive, of entries whose names nobody has checked.
#[derive(Default)]
struct Tar(Vec<(Header, Vec<u8>)>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        self.0.push((header, content.to_vec()));
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    /// Changes the last entry.
    fn with(mut self, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.0.last_mut().unwrap().0);
        self
    }

    fn bytes(self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (mut header, content) in self.0 {
            header.set_cksum();
            builder.append(&header, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

/// What debugfs says of the image of `manifest`.
fn ask(manifest: &Path, question: &str) -> String {
    let said: Value = serde_json::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let image = manifest.with_file_name(said["image"].as_str().unwrap());
    assert_eq!(fs::metadata(&image).unwrap().len(), said["bytes"].as_u64().unwrap());
    assert_eq!(digest(&File::open(&image).unwrap()).unwrap().0, said["sha256"].as_str().unwrap());
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output =
        Command::new("debugfs").env("PATH", path).args(["-R", question]).arg(image).output().unwrap();
    [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).join("\n")
}

fn is_there(manifest: &Path, path: &str) -> bool {
    !ask(manifest, &format!("stat \"{path}\"")).contains("File not found")
}

#[test]
fn owners_permissions_links_and_devices_are_those_of_the_archive_though_nobody_is_root() {
    let bench = Bench::new();
    let tar = Tar::default()
        .directory("./")
        .directory("usr/bin")
        .file("usr/bin/su \"quoted\"", "elf")
        .with(|header| {
            header.set_mode(0o4750);
            header.set_gid(70_000);
        })
        .directory("var/lib/db")
        .with(|header| {
            header.set_mode(0o500);
            header.set_uid(999);
        })
        .file("var/lib/db/data", "rows")
        .with(|header| {
            header.set_mode(0);
            header.set_uid(999);
        })
        .link("bin", "usr/bin")
        .file("bin/through-the-link", "in usr/bin")
        .hard_link("second-name", "usr/bin/through-the-link")
        .entry(EntryType::Char, "dev/null", "", b"")
        .entry(EntryType::Fifo, "run/pipe", "", b"");
    let made = bench.make_of_tar(&tar.bytes()).unwrap();
    for (path, told) in [
        ("/usr/bin/su \"\"quoted\"\"", &["Mode:  04750", "Group: 70000", "Size: 3"][..]),
        ("/var/lib/db", &["Mode:  0500", "User:   999"]),
        ("/var/lib/db/data", &["Mode:  0000", "User:   999"]),
        ("/usr/bin/through-the-link", &["Mode:  0644", "User:     0", "Links: 2", "mtime: 0x3b9aca00"]),
        ("/second-name", &["Links: 2"]),
        ("/bin", &["Type: symlink", "usr/bin"]),
        ("/dev/null", &["Type: character special", "01:03"]),
        ("/run/pipe", &["Type: FIFO"]),
        ("/", &["Mode:  0755", "User:     0"]),
    ] {
        let said = ask(&made, &format!("stat \"{path}\""));
        assert!(told.iter().all(|told| said.contains(told)), "{path}: {said}");
    }
    assert_eq!(ask(&made, "cat /second-name").lines().next(), Some("in usr/bin"));
}

#[test]
fn capabilities_of_programs_are_kept() {
    let bench = Bench::new();
    let mut builder = Builder::new(Vec::new());
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("ping").unwrap();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let made = bench.make_of_tar(&builder.into_inner().unwrap()).unwrap();
    assert!(ask(&made, "ea_list /ping").contains("security.capability (20)"));
}

#[test]
fn layers_hide_what_lies_below_them_and_nothing_of_their_own() {
    let bench = Bench::new();
    let lower = Tar::default()
        .file("gone", "1")
        .file("dir/gone", "1")
        .file("dir/stays", "1")
        .file("opaque/gone", "1")
        .file("opaque/deep/gone", "1")
        .file("again", "1")
        .file("file-then-directory", "1")
        .directory("lib-real")
        .link("lib", "lib-real");
    let upper = Tar::default()
        // Whiteouts may come after what they do not mean.
        .file("again", "22")
        .file(".wh.again", "")
        .file(".wh.gone", "")
        .file("dir/.wh.gone", "")
        .file("opaque/new", "2")
        .file("opaque/deep/new", "2")
        .file("opaque/.wh..wh..opq", "")
        .file(".wh.file-then-directory", "")
        .file("file-then-directory/inside", "2")
        .file("lib/library", "2")
        .file(".wh.never-was-there", "");
    let last = Tar::default().file("gone", "333");
    let made = bench.make_of_layers(&[lower.bytes(), upper.bytes(), last.bytes()]).unwrap();
    for path in [
        "/dir/stays",
        "/opaque/new",
        "/opaque/deep/new",
        "/again",
        "/gone",
        "/file-then-directory/inside",
        "/lib-real/library",
    ] {
        assert!(is_there(&made, path), "{path}");
    }
    for path in [
        "/dir/gone",
        "/opaque/gone",
        "/opaque/deep/gone",
        "/.wh.gone",
        "/opaque/.wh..wh..opq",
        "/never-was-there",
    ] {
        assert!(!is_there(&made, path), "{path}");
    }
    assert!(ask(&made, "stat /again").contains("Size: 2") && ask(&made, "stat /gone").contains("Size: 3"));
}

#[test]
fn no_name_and_no_link_of_an_archive_leads_out_of_it() {
    let bench = Bench::new();
    let outside = bench.at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "precious").unwrap();
    let outside = outside.to_str().unwrap();
    // What a careless program would follow is a name in the image, and no more.
    let tar = Tar::default()
        .link("escape", outside)
        .file("escape/planted", "in the image")
        .link("up", "../../../../../../../../..")
        .file(&format!("up{outside}/planted"), "in the image")
        .file("/absolute", "in the image")
        .link("loot", &format!("{outside}/secret"));
    let made = bench.make_of_tar(&tar.bytes()).unwrap();
    assert!(is_there(&made, &format!("{outside}/planted")) && is_there(&made, "/absolute"));
    assert!(ask(&made, "stat /loot").contains("Type: symlink"));
    for (hostile, told) in [
        (Tar::default().file("../planted", ""), "has \"..\""),
        (Tar::default().file("a/../../planted", ""), "has \"..\""),
        (Tar::default().hard_link("loot", &format!("{outside}/secret")), "a file that is not there"),
        (Tar::default().hard_link("loot", "../../etc/shadow"), "has \"..\""),
        (Tar::default().link("out", outside).hard_link("loot", "out/secret"), "a file that is not there"),
        (Tar::default().directory("d").hard_link("loot", "d"), "a file that is not there"),
        (Tar::default().link("a", "b").link("b", "a").file("a/file", ""), "in circles"),
        (Tar::default().file("file", "").file("file/below", ""), "not a directory"),
        (Tar::default().file("new\nline", ""), "control character"),
        (Tar::default().link("empty", ""), "link to"),
    ] {
        let text = Bench::new().make_of_tar(&hostile.bytes()).unwrap_err().to_string();
        assert!(text.contains(told), "{text}");
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(Path::new(outside).join("secret")).unwrap(), "precious");
}

#[test]
fn an_archive_that_unpacks_without_end_is_stopped() {
    let bench = Bench::new();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::best());
    let tar = Tar::default().entry(EntryType::Regular, "zeros", "", &vec![0; 2 << 20]);
    gzip.write_all(&tar.bytes()).unwrap();
    fs::write(bench.at("bomb.tar.gz"), gzip.finish().unwrap()).unwrap();
    let problem =
        bench.run(&["--tar", bench.at("bomb.tar.gz").to_str().unwrap(), "--most-mib", "1"]).unwrap_err();
    assert!(problem.to_string().contains("--most-mib"), "{problem}");
}

#[test]
fn a_layout_whose_blobs_are_not_what_their_digests_say_is_refused() {
    let bench = Bench::new();
    bench.make_of_layers(&[Tar::default().file("a", "1").bytes()]).unwrap();
    let layout = bench.at("layout");
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let again = ["--oci", layout.to_str().unwrap(), "--replace"];
    let refusal = |bench: &Bench| match Order::parse(
        ["--catalogue", bench.at("catalogue").to_str().unwrap(), "--name", "made"]
            .iter()
            .chain(&again)
            .map(|word| (*word).to_owned()),
    ) {
        Ok(order) => carry_out(&order).unwrap_err().to_string(),
        Err(problem) => panic!("{problem}"),
    };
    assert!(refusal(&bench).contains("damaged"));
    for digest in ["sha256:../../../../etc/passwd", "sha512:00", ""] {
        let index = json!({ "manifests": [{ "digest": digest }] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        assert!(refusal(&bench).contains("not one of SHA-256"));
    }
}

#[test]
fn a_directory_becomes_an_image_with_the_owner_that_is_wanted() {
    let bench = Bench::new();
    let root = bench.at("root");
    fs::create_dir_all(root.join("etc/a b")).unwrap();
    fs::write(root.join("etc/a b/file"), "content").unwrap();
    symlink("/nowhere", root.join("etc/link")).unwrap();
    let made = bench
        .run(&["--dir", root.to_str().unwrap(), "--owner", "7:8", "--size-mib", "64", "--boot-args", "quiet"])
        .unwrap();
    let said = ask(&made, "stat \"/etc/a b/file\"");
    assert!(
        said.contains("User:     7") && said.contains("Group:     8") && said.contains("Size: 7"),
        "{said}"
    );
    assert!(ask(&made, "stat /etc/link").contains("User:     7"));
    let manifest: Value = serde_json::from_str(&fs::read_to_string(&made).unwrap()).unwrap();
    assert_eq!(
        (&manifest["bytes"], &manifest["boot_args"], &manifest["format"]),
        (&json!(64 << 20), &json!("quiet"), &json!("ext4"))
    );
    assert_eq!(
        fs::metadata(root.join("etc/link").parent().unwrap()).unwrap().uid(),
        fs::metadata(&bench.0).unwrap().uid()
    );
}

#[test]
fn an_image_is_published_at_once_and_never_by_accident() {
    let bench = Bench::new();
    let image = bench.at("disk");
    fs::write(&image, [1; 8192]).unwrap();
    let source = ["--image", image.to_str().unwrap()];
    let made = bench.run(&source).unwrap();
    let first: Value = serde_json::from_str(&fs::read_to_string(&made).unwrap()).unwrap();
    assert!(
        bench.at("catalogue").join(first["image"].as_str().unwrap()).exists() && first["format"] == "raw"
    );
    fs::write(&image, [2; 8192]).unwrap();
    let catalogue = bench.at("catalogue");
    let order = |more: &[&str]| {
        let always = ["--catalogue", catalogue.to_str().unwrap(), "--name", "made"];
        let all = always.iter().chain(&source).chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Order::parse(all.into_iter()).and_then(|order| carry_out(&order))
    };
    assert!(order(&[]).unwrap_err().to_string().contains("--replace"));
    order(&["--replace"]).unwrap();
    let second: Value = serde_json::from_str(&fs::read_to_string(&made).unwrap()).unwrap();
    // Who has the former one open, or its manifest read, still finds it.
    assert_ne!(first["image"], second["image"]);
    assert!(catalogue.join(first["image"].as_str().unwrap()).exists());
}

#[test]
fn an_order_that_cannot_be_is_refused_with_the_usage() {
    for given in [
        "",
        "--name a",
        "--catalogue c --name a",
        "--catalogue c --name a --dir d --tar t",
        "--catalogue c --name ../a --dir d",
        "--catalogue c --name a --dir d --add x=/y",
        "--catalogue c --name a --dir d --owner root",
        "--what",
        "--what x",
    ] {
        let problem = Order::parse(given.split_whitespace().map(str::to_owned)).unwrap_err();
        assert!(problem.to_string().contains("usage: mvm-image"), "{given}: {problem}");
    }
}

#[test]
fn a_manifest_has_the_keys_that_the_reference_lists() {
    let bench = Bench::new();
    fs::write(bench.at("disk"), [1; 4096]).unwrap();
    let made = bench.run(&["--image", bench.at("disk").to_str().unwrap(), "--boot-args", "quiet"]).unwrap();
    let manifest: Map<String, Value> = serde_json::from_str(&fs::read_to_string(&made).unwrap()).unwrap();
    let reference = include_str!("../../docs/json.md").split("### A catalogue of images").nth(1).unwrap();
    assert!(manifest.keys().all(|key| reference.contains(&format!("| `{key}` |"))), "{manifest:?}");
    assert!(["name", "image", "bytes"].iter().all(|key| manifest.contains_key(*key)));
}

//! Specs with disks from images: what they become, and what is said of those that cannot be.

use super::*;
use crate::scratch::Scratch;
use crate::vm::spec::Spec;
use serde_json::json;

fn catalogue() -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir(&scratch).unwrap();
    std::fs::write(scratch.join("small.img"), [7; 4096]).unwrap();
    let manifest = json!({ "name": "small", "image": "small.img", "bytes": 4096, "format": "raw",
        "sha256": "ab".repeat(32), "boot_args": "console=ttyS0 rw", "annotations": { "made": "by hand" } });
    std::fs::write(scratch.join("small.json"), manifest.to_string()).unwrap();
    scratch
}

fn settled(spec: &Value, catalogue: Option<&Path>) -> Result<(Value, Spec), SpecError> {
    let given = SpecRecord { spec: spec.to_string(), base: "/base".into(), own_files: Vec::new() };
    let settled = settle(given, catalogue)?;
    Ok((serde_json::from_str(&settled.spec).unwrap(), Spec::of_record_file(&settled)?))
}

fn refusal(spec: &Value, catalogue: Option<&Path>) -> String {
    let error = settled(spec, catalogue).expect_err(&spec.to_string());
    crate::causes::with_causes(&error)
}

#[test]
fn a_template_becomes_the_root_device_and_a_file_of_the_vm_s_own() {
    let catalogue = catalogue();
    let spec =
        json!({ "boot-source": { "kernel_image_path": "k" }, "mvm": { "rootfs": { "template": "small" } } });
    let (json, spec) = settled(&spec, Some(&catalogue)).unwrap();
    let image = catalogue.join("small.img");
    let drive =
        json!({ "drive_id": "rootfs", "is_root_device": true, "is_read_only": false, "path_on_host": image });
    assert_eq!(json["drives"], json!([drive]));
    assert_eq!(json["boot-source"]["boot_args"], "console=ttyS0 rw");
    assert_eq!((spec.links().count(), spec.images().collect::<Vec<_>>()), (0, vec![image.as_path()]));
    assert!(spec.uses().iter().all(|used| used.is_own));
    let wanted = Finish { bytes: None, format: Format::Raw, ..Finish::default() };
    assert!(matches!(&spec.disks[0].kind, DiskKind::Own { finish, keep: None } if *finish == wanted));
}

#[test]
fn a_settled_spec_needs_no_catalogue_any_more_and_stays_as_it_is() {
    let catalogue = catalogue();
    let (json, _) =
        settled(&json!({ "mvm": { "rootfs": { "template": "small", "size_mib": 8 } } }), Some(&catalogue))
            .unwrap();
    drop(catalogue);
    let record =
        SpecRecord { spec: json.to_string(), base: "/".into(), own_files: vec!["drives/rootfs".into()] };
    let spec = Spec::of_record_file(&record).unwrap();
    assert!(matches!(&spec.disks[0].kind, DiskKind::Own { finish, .. } if finish.bytes == Some(8 << 20)));
}

#[test]
fn a_read_only_image_is_a_link_and_is_checked_when_it_is_to_be() {
    let catalogue = catalogue();
    let disk = json!({ "template": "small", "read_only": true, "verify": "sha256" });
    let (_, spec) = settled(&json!({ "mvm": { "disks": { "tools": disk } } }), Some(&catalogue)).unwrap();
    assert_eq!(spec.links().next().unwrap().target, catalogue.join("small.img"));
    let digest = "ab".repeat(32);
    assert!(
        matches!(&spec.disks[0].kind, DiskKind::Shared { check: Some(Check::Sha256(wanted)) } if *wanted == digest)
    );
}

#[test]
fn what_the_spec_says_of_the_device_itself_is_kept() {
    let drive =
        json!({ "drive_id": "os", "is_root_device": true, "is_read_only": false, "cache_type": "Writeback" });
    let spec = json!({ "boot-source": { "kernel_image_path": "k", "boot_args": "mine" }, "drives": [drive],
        "pmem": [{ "id": "p" }],
        "mvm": { "rootfs": { "from": "os.img" }, "disks": { "p": { "from": "/p.img", "read_only": true } } } });
    let (json, spec) = settled(&spec, None).unwrap();
    assert_eq!(
        (&json["drives"][0]["path_on_host"], &json["drives"][0]["cache_type"]),
        (&json!("/base/os.img"), &json!("Writeback"))
    );
    assert_eq!(
        (&json["pmem"][0]["path_on_host"], &json["boot-source"]["boot_args"]),
        (&json!("/p.img"), &json!("mine"))
    );
    let names = spec.disks.iter().map(|disk| disk.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names, ["drives/os", "pmem/p"]);
}

#[test]
fn a_spec_without_such_disks_is_passed_on_as_it_was_written() {
    for spec in [r#"{ "drives": [] }"#, r#"{"mvm": {"disks": {}},  "x": 1}"#, "[]"] {
        let given = SpecRecord { spec: spec.into(), base: "/".into(), own_files: Vec::new() };
        assert_eq!(settle(given, None).unwrap().spec, spec);
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_key_and_with_advice() {
    let catalogue = catalogue();
    let disk = |disk: Value| json!({ "mvm": { "disks": { "data": disk } } });
    let digest = "0".repeat(64);
    for (spec, key, advice) in [
        (json!({ "mvm": { "rootfs": {} } }), "mvm.rootfs", r#""template" for an image"#),
        (disk(json!({ "from": "a", "template": "small" })), "mvm.disks.data", "name one image"),
        (disk(json!({ "template": "smal" })), "mvm.disks.data", r#"no image "smal"; it has small"#),
        (disk(json!({ "template": "../small" })), "mvm.disks.data", "cannot be the name of an image"),
        (disk(json!({ "template": "/etc/passwd" })), "mvm.disks.data", "cannot be the name of an image"),
        (disk(json!({ "template": "a".repeat(4096) })), "mvm.disks.data", "up to 128 letters"),
        (disk(json!({ "template": "a\r\nb" })), "mvm.disks.data", "cannot be the name of an image"),
        (
            disk(json!({ "template": "small", "read_only": true, "size_mib": 9 })),
            "mvm.disks.data",
            r#""size_mib" is for a disk"#,
        ),
        (
            disk(json!({ "from": "a", "read_only": true, "keep": "b" })),
            "mvm.disks.data",
            r#""keep" is for a disk"#,
        ),
        (disk(json!({ "from": "a", "verify": "sha256" })), "mvm.disks.data", "belong together"),
        (disk(json!({ "from": "a", "digest": digest })), "mvm.disks.data", "belong together"),
        (disk(json!({ "template": "small", "verify": "fs_verity" })), "mvm.disks.data", "belong together"),
        (
            disk(json!({ "from": "a", "verify": "sha256", "digest": "sha256:00" })),
            "mvm.disks.data",
            "not a digest",
        ),
        (disk(json!({ "fromm": "a" })), "mvm.disks.data", r#"did you mean "from"?"#),
    ] {
        let text = refusal(&spec, Some(&catalogue));
        assert!(text.contains(key) && text.contains(advice), "{spec}: {text}");
    }
    let with_drive =
        |drive: Value| json!({ "drives": [drive], "mvm": { "rootfs": { "from": "a", "read_only": true } } });
    for (spec, advice) in [
        (with_drive(json!({ "drive_id": "rootfs", "path_on_host": "b" })), "leave it out"),
        (with_drive(json!({ "drive_id": "rootfs", "is_read_only": false })), "is_read_only"),
        (with_drive(json!({ "drive_id": "rootfs", "is_root_device": false })), "is_root_device"),
        (
            json!({ "drives": [{ "drive_id": "rootfs" }, { "drive_id": "rootfs" }], "mvm": { "rootfs": { "from": "a" } } }),
            "more than one",
        ),
        (
            json!({ "mvm": { "rootfs": { "from": "a" }, "disks": { "rootfs": { "from": "b" } } } }),
            "leave it out",
        ),
        (json!({ "mvm": { "rootfs": { "template": "small" } } }), "set \"catalogue\""),
        (json!({ "drives": 7, "mvm": { "rootfs": { "from": "a" } } }), "drives: this must be a list"),
    ] {
        let text = refusal(&spec, None);
        assert!(text.contains(advice), "{spec}: {text}");
    }
}

#[test]
fn a_manifest_that_does_not_fit_its_image_is_refused() {
    let catalogue = catalogue();
    let spec = json!({ "mvm": { "rootfs": { "template": "small" } } });
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest = json!({ "name": "small", "image": "small.img", "bytes": 4096 });
        change(&mut manifest);
        std::fs::write(catalogue.join("small.json"), manifest.to_string()).unwrap();
        refusal(&spec, Some(&catalogue))
    };
    for (change, told) in [
        (
            &(|it: &mut Value| it["bytes"] = 4095.into()) as &dyn Fn(&mut Value),
            "has 4096 bytes, and its manifest says 4095",
        ),
        (&|it| it["name"] = "large".into(), "is of the image \"large\""),
        (&|it| it["image"] = "../small.img".into(), "cannot be the name of an image"),
        (&|it| it["image"] = "missing.img".into(), "cannot read"),
        (&|it| it["sha265"] = "".into(), r#"did you mean "sha256"?"#),
        (&|it| *it = json!([]), "must be an object"),
    ] {
        let text = with(change);
        assert!(text.contains(told), "{text}");
    }
    std::os::unix::fs::symlink("small.img", catalogue.join("link.img")).unwrap();
    assert!(with(&|it| it["image"] = "link.img".into()).contains("not a regular file"));
    std::fs::remove_file(catalogue.join("small.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", catalogue.join("small.json")).unwrap();
    assert!(refusal(&spec, Some(&catalogue)).contains("cannot read"));
}

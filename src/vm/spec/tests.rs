//! Config files that work, and what is said of those that do not.

use super::*;
use proptest::prelude::*;

fn parse(json: &str) -> Result<Spec, SpecError> {
    Spec::parse(json, Path::new("/base"))
}

fn paths(spec: &Spec) -> Vec<&str> {
    spec.requests.iter().map(|put| put.request.path.as_str()).collect()
}

/// The error and its causes, as a user reads them.
fn refusal(json: &str) -> String {
    let error = parse(json).expect_err(json);
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[test]
fn sections_become_requests_in_firecrackers_own_order() {
    let spec = parse(
        r#"{"entropy":{},"vsock":{"guest_cid":3,"uds_path":"v.sock"},"drives":[{"drive_id":"a"},{"drive_id":"b"}],
            "boot-source":{"kernel_image_path":"k"},"machine-config":{},"logger":{},"memory-hotplug":{},
            "network-interfaces":[{"iface_id":"eth0"}],"mmds-config":{},"balloon":null}"#,
    )
    .unwrap();
    let wanted = [
        "/logger",
        "/machine-config",
        "/boot-source",
        "/drives/a",
        "/drives/b",
        "/network-interfaces/eth0",
        "/vsock",
        "/mmds/config",
        "/entropy",
        "/hotplug/memory",
    ];
    assert_eq!(paths(&spec), wanted);
    assert_eq!(spec.features, [Feature::MemoryHotplug]);
}

#[test]
fn relative_host_paths_are_relative_to_the_callers_directory() {
    let spec = parse(r#"{"boot-source":{"kernel_image_path":"vmlinux","initrd_path":"/i"}}"#).unwrap();
    let body: Value = serde_json::from_slice(spec.requests[0].request.body.as_deref().unwrap()).unwrap();
    assert_eq!(body["kernel_image_path"], "/base/vmlinux");
    assert_eq!(body["initrd_path"], "/i");
}

#[test]
fn a_section_of_a_newer_firecracker_is_sent_on_as_it_is() {
    let spec = parse(r#"{"holodeck":{"level":9},"turbos":[{"id":"t1","x":1}]}"#).unwrap();
    assert_eq!(paths(&spec), ["/holodeck", "/turbos/t1"]);
    assert_eq!(spec.requests[0].request.body.as_deref(), Some(&br#"{"level":9}"#[..]));
}

#[test]
fn an_unknown_key_of_the_library_is_named_with_its_nearest() {
    let text = refusal(r#"{"mvm":{"shutdwn":{}}}"#);
    assert!(text.contains(r#""shutdwn""#) && text.contains(r#"did you mean "shutdown"?"#), "{text}");
    let text = refusal(r#"{"mvm":{"deadlines":{"kil_ms":1}}}"#);
    assert!(text.contains("mvm.deadlines") && text.contains("kill_ms"), "{text}");
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_place() {
    for (json, place) in [
        (r#"{"mvm":{"deadlines":{"kill_ms":"soon"}}}"#, "mvm.deadlines.kill_ms"),
        (r#"{"mvm":{"shutdown":{"guest":"politely"}}}"#, "mvm.shutdown.guest"),
        (r#"{"mvm":7}"#, "mvm"),
        (r#"{"mvm":{"arguments":"--x"}}"#, "mvm.arguments"),
        (r#"{"drives":{}}"#, "drives"),
        (r#"{"drives":[7]}"#, "drives[0]"),
        (r#"{"drives":[{}]}"#, "drives[0]"),
        (r#"{"drives":[{"drive_id":7}]}"#, "drives[0].drive_id"),
        (r#"{"machine-config":[]}"#, "machine-config"),
    ] {
        let text = refusal(json);
        assert!(text.contains(place), "{json}: {text}");
    }
}

#[test]
fn no_id_changes_what_is_requested_or_linked() {
    for id in ["", "a b", "a/b", "../vm", "a\\r\\nPUT", "ä", "a?b"] {
        let spec = parse(&format!(r#"{{"drives":[{{"drive_id":"{id}","path_on_host":"d"}}]}}"#)).unwrap();
        let name = paths(&spec)[0].strip_prefix("/drives/").unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        assert_eq!(spec.links().next().unwrap().name.as_path(), Path::new("drives").join(name));
    }
}

#[test]
fn of_two_devices_with_one_id_each_has_its_own_file_until_the_second_takes_the_firsts_place() {
    let drive = |path: &str| format!(r#"{{"drive_id":"a","path_on_host":"{path}"}}"#);
    let spec = parse(&format!(r#"{{"drives":[{},{}]}}"#, drive("one"), drive("two"))).unwrap();
    assert_eq!(paths(&spec), ["/drives/a", "/drives/a"]);
    let links =
        spec.links().map(|link| (link.name.as_path().to_str(), link.target.to_str())).collect::<Vec<_>>();
    assert_eq!(links, [(Some("drives/a.0"), Some("/base/one")), (Some("drives/a"), Some("/base/two"))]);
}

#[test]
fn what_cannot_be_a_section_is_passed_over() {
    let spec =
        parse(r#"{"_comment":"mine","a b":{},"a/b":{},"n":7,"l":[1,{"id":"x/y"}],"next":{}}"#).unwrap();
    assert_eq!(paths(&spec), ["/l/mvm_id_x_2fy", "/next"]);
}

#[test]
fn arguments_by_which_the_library_holds_the_vmm_are_its_own() {
    for argument in ["--id", "--api-sock=/tmp/x", "--no-api"] {
        let text = refusal(&format!(r#"{{"mvm":{{"arguments":["{argument}"]}}}}"#));
        assert!(text.contains(argument), "{text}");
    }
    assert!(parse(r#"{"mvm":{"arguments":["--enable-pci","--idle"]}}"#).is_ok());
}

#[test]
fn a_socket_path_that_no_address_holds_is_refused_with_its_length() {
    let text = refusal(&format!(r#"{{"vsock":{{"uds_path":"/{}"}}}}"#, "x".repeat(120)));
    assert!(text.contains("121 bytes") && text.contains("107"), "{text}");
}

#[test]
fn what_is_no_object_is_no_spec() {
    for json in ["", "{", "[]", "7", "null", r#""x""#, "{}}"] {
        refusal(json);
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_json_makes_the_reader_panic(json in json_like()) {
        let _ = parse(&json.to_string());
    }
}

fn json_like() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("mvm".to_owned()),
        Just("drives".to_owned()),
        Just("drive_id".to_owned()),
        Just("vsock".to_owned()),
        Just("uds_path".to_owned()),
        Just("deadlines".to_owned()),
        Just("kill_ms".to_owned()),
        "[a-z_-]{0,8}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

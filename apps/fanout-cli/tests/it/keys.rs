//! `fanout keys`.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::run;

/// What it prints, line by line as JSON.
#[track_caller]
fn lines(folder: &Path, args: &[&str]) -> Vec<Value> {
    let output = run(folder, &[], &[&["--json", "keys"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_key_is_shown_once_and_listed_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let added = lines(folder.path(), &["add", "--project", "support", "--approve"]).remove(0);
    let key = added["key"].as_str().unwrap();
    assert!(key.starts_with("fanout_"));
    let mut listed = added.clone();
    listed.as_object_mut().unwrap().remove("key");
    assert_eq!(lines(folder.path(), &["list"]), [listed.clone()]);
    assert_eq!(
        (&listed["project"], &listed["admin"], &listed["approve"]),
        (&json!("support"), &json!(false), &json!(true))
    );
    let text = String::from_utf8(run(folder.path(), &[], &["keys", "list"]).stdout).unwrap();
    assert!(text.contains(listed["id"].as_str().unwrap()) && text.contains("support") && !text.contains(key), "{text}");
    assert!(!std::fs::read_to_string(folder.path().join("keys.toml")).unwrap().contains(key));
    assert_eq!(lines(folder.path(), &["revoke", listed["id"].as_str().unwrap()]), [listed]);
    assert!(lines(folder.path(), &["list"]).is_empty());
}

#[test]
fn the_configuration_says_where_keys_stand() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    std::fs::write(folder.path().join("fanout.toml"), "[server]\nkeys_file = \"secret/k.toml\"").unwrap();
    lines(&folder.path().join("below"), &["add"]);
    assert!(folder.path().join("secret/k.toml").is_file());
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (args, said) in [
        (&["keys", "revoke", "key_1"][..], "there is no key `key_1`"),
        (&["keys", "revoke"], "<ID>"),
        (&["keys"], "Usage"),
        (&["keys", "add", "--project"], "--project"),
    ] {
        let output = run(folder.path(), &[], args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    assert!(!folder.path().join("keys.toml").exists());
}

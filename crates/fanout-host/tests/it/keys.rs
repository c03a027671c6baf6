//! Keys: made, recognised, taken away.

use std::path::Path;

use fanout_host::keys::{Grant, KeysError, KeysFile, whose};
use secrecy::ExposeSecret;

fn file(folder: &Path) -> KeysFile {
    KeysFile::at(folder.join("sub/keys.toml"))
}

#[test]
fn a_key_is_recognised_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    assert!(file.read().unwrap().is_empty() && file.stamp().unwrap().is_none());
    let grant = Grant { project: Some("support".to_owned()), admin: true, approve: false };
    let (first, secret) = file.add(grant).unwrap();
    let (second, other) = file.add(Grant::default()).unwrap();
    let keys = file.read().unwrap();
    assert_eq!(keys, [first.clone(), second.clone()]);
    assert_eq!((first.project.as_deref(), first.admin, first.approve), (Some("support"), true, false));
    assert_eq!(whose(&keys, secret.expose_secret()), Some(&first));
    assert_eq!(whose(&keys, other.expose_secret()), Some(&second));
    for wrong in
        ["", "fanout_", first.id.as_str(), &secret.expose_secret()[1..], &secret.expose_secret().to_uppercase()]
    {
        assert_eq!(whose(&keys, wrong), None, "{wrong}");
    }
    assert_eq!(file.revoke(&first.id).unwrap(), first);
    assert_eq!(file.read().unwrap(), [second]);
    assert!(matches!(file.revoke(&first.id), Err(KeysError::Unknown { .. })));
}

#[test]
fn the_file_holds_no_key_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    let (_, secret) = file.add(Grant::default()).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(!text.contains(secret.expose_secret()) && !text.contains(&secret.expose_secret()[7..]), "{text}");
    assert_eq!(secret.expose_secret().len(), "fanout_".len() + 64);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_file_that_is_not_ours_is_named_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    for (text, what) in [
        ("[[key]]\nid = \"a\"\n", "sha256"),
        ("[[key]]\nid = \"a\"\nsha256 = \"xyz\"\ncreated = \"\"\n", "the `sha256` of `a` is none"),
        ("nonsense", "expected"),
        ("[other]\na = 1", "unknown field"),
    ] {
        std::fs::write(&path, text).unwrap();
        let file = KeysFile::at(&path);
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("does not hold keys") && error.contains(what), "{error}");
        assert!(file.add(Grant::default()).is_err() && file.revoke("a").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn keys_made_at_the_same_time_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..4).for_each(|_| drop(file.add(Grant::default()).unwrap())));
        }
    });
    assert_eq!(file.read().unwrap().len(), 32);
}

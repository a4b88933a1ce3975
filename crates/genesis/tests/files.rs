//! Files on disk: founding a group, and key files that are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use auth::{Peer, Secret};
use base::{ClientId, ReplicaId};
use genesis::{GenesisError, Group, InitOptions, init, key_file};

const R0: Peer = Peer::Replica(ReplicaId(0));

fn mode(path: &Path) -> u32 {
    path.metadata().expect("is there").permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("own file");
}

#[test]
fn init_leaves_a_group_that_loads_with_a_key_for_everybody() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("new").join("group");
    let founded = init(&dir, &InitOptions::default()).expect("founded");
    for path in [dir.clone(), dir.join("group.toml")] {
        let group = Group::load(&path).expect("loads");
        assert_eq!(group.id(), founded.id());
        assert_eq!(group.path(), dir.join("group.toml"));
    }
    let mut files: Vec<_> = fs::read_dir(dir.join("keys"))
        .expect("key files")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    let expected = [
        "client-0",
        "client-1",
        "client-2",
        "client-3",
        "replica-0",
        "replica-1",
        "replica-2",
        "replica-3",
    ];
    assert_eq!(files, expected.map(|name| format!("{name}.key")));
    for name in files {
        assert_eq!(mode(&dir.join("keys").join(name)), 0o600);
    }
    assert_eq!(mode(&dir.join("keys")), 0o700);
    for id in 0..4 {
        let replica = Peer::Replica(ReplicaId(id));
        let client = Peer::Client(ClientId(u32::from(id)));
        for peer in [replica, client] {
            let secret = founded.load_secret(peer).expect("own key");
            assert_eq!(Some(&secret.public(peer)), founded.directory().peer(peer));
        }
    }
    assert_eq!(fs::read_dir(&dir).expect("the group").count(), 2, "nothing temporary is left");
}

#[test]
fn init_overwrites_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path();
    init(dir, &InitOptions::default()).expect("founded");
    let before = fs::read_to_string(dir.join("group.toml")).expect("text");
    let again = init(dir, &InitOptions::default()).expect_err("a second init");
    assert!(matches!(&again, GenesisError::Exists { path } if *path == dir.join("group.toml")));
    assert!(again.to_string().contains("Choose another directory"), "{again}");
    assert_eq!(fs::read_to_string(dir.join("group.toml")).expect("text"), before);
    // Keys without a configuration: what an interrupted init leaves. They may be somebody's.
    fs::remove_file(dir.join("group.toml")).expect("own file");
    let key = fs::read(dir.join("keys/replica-0.key")).expect("a key");
    let error = init(dir, &InitOptions::default()).expect_err("keys are there");
    assert!(matches!(error, GenesisError::Exists { path }
        if path == dir.join("keys/replica-0.key")));
    assert_eq!(fs::read(dir.join("keys/replica-0.key")).expect("a key"), key);
    assert!(!dir.join("group.toml").exists(), "no group without its keys");
}

#[test]
fn init_does_not_write_through_a_link() {
    let temp = tempfile::tempdir().expect("a directory");
    let target = temp.path().join("elsewhere");
    let dir = temp.path().join("group");
    fs::create_dir(&dir).expect("new");
    symlink(&target, dir.join("group.toml")).expect("a link to nowhere");
    let error = init(&dir, &InitOptions::default()).expect_err("something is there");
    assert!(matches!(error, GenesisError::Exists { .. }));
    assert!(!target.exists());
}

#[test]
fn init_works_beside_unrelated_files_and_checks_its_options_first() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path();
    fs::write(dir.join("notes.txt"), "mine").expect("written");
    for bad in [
        InitOptions { port: 0, ..InitOptions::default() },
        InitOptions { faults: Some(2), ..InitOptions::default() },
    ] {
        let error = init(dir, &bad).expect_err("illegal");
        assert!(matches!(error, GenesisError::Field { .. }), "{error}");
        assert_eq!(fs::read_dir(dir).expect("readable").count(), 1, "nothing was written");
    }
    init(dir, &InitOptions::default()).expect("founded");
    assert_eq!(fs::read_to_string(dir.join("notes.txt")).expect("text"), "mine");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let temp = tempfile::tempdir().expect("a directory");
    let error = Group::load(&temp.path().join("none.toml")).expect_err("not there");
    assert!(matches!(&error, GenesisError::Io { path, .. } if path.ends_with("none.toml")));
    let error = Group::load(temp.path()).expect_err("an empty directory");
    assert!(matches!(&error, GenesisError::Io { path, .. } if path.ends_with("group.toml")));
    fs::write(temp.path().join("group.toml"), [0xff, 0xfe]).expect("written");
    let error = Group::load(temp.path()).expect_err("not text");
    assert!(matches!(error, GenesisError::Io { doing: "read the group's configuration", .. }));
}

fn key(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("some.key");
    key_file::write(&path, R0, "demo", &Secret::from_bytes([0xab; 32])).expect("written");
    path
}

#[test]
fn a_key_file_that_others_can_touch_is_refused_with_the_remedy() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = key(temp.path());
    assert_eq!(mode(&path), 0o600);
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o660, 0o644, 0o777] {
        chmod(&path, bits);
        let error = key_file::read(&path, R0, "demo").expect_err("too open");
        assert!(matches!(error, GenesisError::KeyMode { mode, .. } if mode == bits));
        let remedy = format!("chmod 600 {}", path.display());
        assert!(error.to_string().ends_with(&remedy), "{error}");
    }
    for bits in [0o600, 0o400] {
        chmod(&path, bits);
        let secret = key_file::read(&path, R0, "demo").expect("private");
        assert_eq!(secret.public(R0), Secret::from_bytes([0xab; 32]).public(R0));
    }
    // What counts is the file itself, not a link to it.
    let link = temp.path().join("link.key");
    symlink(&path, &link).expect("a link");
    assert!(key_file::read(&link, R0, "demo").is_ok());
    chmod(&path, 0o644);
    assert!(matches!(key_file::read(&link, R0, "demo"), Err(GenesisError::KeyMode { .. })));
}

#[test]
fn a_key_file_is_not_overwritten() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = key(temp.path());
    let before = fs::read(&path).expect("a key");
    let error = key_file::write(&path, R0, "demo", &Secret::from_bytes([1; 32])).err();
    assert!(matches!(error, Some(GenesisError::Exists { path: p }) if p == path));
    assert_eq!(fs::read(&path).expect("a key"), before);
    assert_eq!(fs::read_dir(temp.path()).expect("readable").count(), 1);
}

#[test]
fn a_key_file_of_somebody_else_is_refused() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = key(temp.path());
    let others =
        [(Peer::Replica(ReplicaId(1)), "demo"), (Peer::Client(ClientId(0)), "demo"), (R0, "other")];
    for (wanted, group) in others {
        let error = key_file::read(&path, wanted, group).expect_err("somebody else's");
        assert!(matches!(error, GenesisError::KeyOfOther { found, .. } if found == R0));
    }
}

#[test]
fn a_key_file_with_other_content_is_refused_without_showing_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = key(temp.path());
    let good = fs::read_to_string(&path).expect("text");
    let seed = "ab".repeat(32);
    for (bad, what) in [
        (String::new(), "role, id, group or seed is missing"),
        (good.replace("id = 0\n", ""), "role, id, group or seed is missing"),
        (good.replace("role", "rule"), "an unknown key"),
        (good.replace("id = 0\n", "id = 0\nid = 0\n"), "a key stands twice"),
        (good.replace("id = 0\n", "id = 70000\n"), "role or id is none"),
        (good.replace("role = replica", "role = king"), "role or id is none"),
        (good.replace("id = 0\n", "id 0\n"), "a line without '='"),
        (good.replace(&seed, &seed[1..]), "the seed is not 64 hexadecimal digits"),
        (good.replace(&seed, &seed.replace('a', "x")), "the seed is not 64 hexadecimal digits"),
    ] {
        fs::write(&path, &bad).expect("own file");
        let error = key_file::read(&path, R0, "demo").expect_err(what);
        assert!(matches!(error, GenesisError::KeyContent { what: w, .. } if w == what), "{error}");
        assert!(!format!("{error} {error:?}").contains("abab"), "{error}");
    }
    fs::write(&path, [0xff; 10]).expect("own file");
    let error = key_file::read(&path, R0, "demo").expect_err("not text");
    assert!(matches!(error, GenesisError::KeyContent { what: "not text", .. }));
    fs::write(&path, vec![b'#'; 5000]).expect("own file");
    let error = key_file::read(&path, R0, "demo").expect_err("too large");
    assert!(matches!(error, GenesisError::TooLarge { max: 4096, .. }));
    chmod(temp.path(), 0o700);
    let error = key_file::read(temp.path(), R0, "demo").expect_err("a directory");
    assert!(matches!(error, GenesisError::KeyContent { what: "not a regular file", .. }));
}

#[test]
fn a_key_of_another_founding_is_refused() {
    let temp = tempfile::tempdir().expect("a directory");
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    let first = init(&one, &InitOptions::default()).expect("founded");
    let second = init(&two, &InitOptions::default()).expect("founded");
    let error = first.load_secret_from(&second.key_path(R0), R0).expect_err("another key");
    assert!(matches!(&error, GenesisError::KeyMismatch { source, .. }
        if *source == auth::AuthError::WrongSecret(R0)));
    assert!(error.to_string().contains("different groups"), "{error}");
}

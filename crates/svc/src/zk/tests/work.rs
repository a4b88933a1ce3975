//! How much one request may do to those who watch.

use super::*;

/// A session, a node that it has made, and other sessions that watch everything.
fn watched_by(sessions: usize) -> (Fixture, Attachment, Vec<Attachment>) {
    let mut zk = Fixture::new();
    let s = zk.open(60_000);
    zk.ok(s, kind::CREATE, &create("/a", b"", 0));
    let others: Vec<Attachment> = (0..sessions).map(|_| zk.open(60_000)).collect();
    for other in &others {
        zk.ok(*other, kind::ADD_WATCH, &path_int("/", 1));
    }
    (zk, s, others)
}

#[test]
fn many_changes_tell_many_sessions_up_to_a_bound_and_then_cut_them_off() {
    for (changes, cut_off) in [(350, false), (1000, true)] {
        let (mut zk, s, others) = watched_by(10);
        zk.ok(s, kind::ADD_WATCH, &path_int("/", 1));
        let parts = vec![(kind::SET_DATA, set("/a", b"", -1)); changes];
        let own = zk.ok(s, kind::MULTI, &multi(&parts));
        assert_eq!(own.told().len(), changes, "its own watches stay");
        let (told, gone) = zk.renew(&others);
        if cut_off {
            assert_eq!((told.len(), gone), (0, 10), "nobody is told a part of it");
        } else {
            assert!(told.len() == 10 && told.iter().all(|(_, events)| events.len() == changes));
            assert_eq!(gone, 0);
        }
        let watches = zk.harness.service.state().counts().watches;
        assert_eq!(watches, if cut_off { 1 } else { 11 });
        // Who comes back is told again.
        let back = zk.resume(others[0].0, PASSWORD).expect("its password");
        zk.ok(back, kind::ADD_WATCH, &path_int("/", 1));
        zk.ok(s, kind::SET_DATA, &set("/a", b"", -1));
        assert!(zk.renew(&[]).0.iter().any(|(id, events)| *id == back.0 && events.len() == 1));
        zk.harness.root();
    }
}

/// Watches cost the same whether or not those who have them may know.
#[test]
fn those_who_may_not_read_are_cut_off_as_well() {
    let (mut zk, s, others) = watched_by(10);
    let auth = jute(|w| {
        w.int(0).text("digest").buffer(Some(b"me:pw"));
    });
    zk.ok(s, kind::AUTH, &auth);
    zk.ok(s, kind::CREATE, &create_as("/mine", b"", 0, "auth", ""));
    let parts = vec![(kind::SET_DATA, set("/mine", b"", -1)); 1000];
    zk.ok(s, kind::MULTI, &multi(&parts));
    assert_eq!(zk.renew(&others).1, 10);
    assert_eq!(zk.harness.service.state().counts().watches, 0);
    zk.harness.root();
}

/// A replica with workers asks what later requests touch, one without does not: nothing that
/// happens may hang on that.
#[test]
fn what_is_only_expected_cuts_nobody_off() {
    let run = |expects: bool| {
        let mut zk = Fixture::new();
        let s = zk.open(60_000);
        zk.ok(s, kind::CREATE, &create("/a", b"", 0));
        zk.ok(s, kind::CREATE, &create("/a/b", b"", 0));
        for _ in 0..10 {
            let other = zk.open(60_000);
            zk.ok(other, kind::ADD_WATCH, &path_int("/a", 0));
        }
        let on_it = zk.open(60_000);
        zk.ok(on_it, kind::ADD_WATCH, &path_int("/a/b", 0));
        if expects {
            zk.expect(on_it, kind::ADD_WATCH, &path_int("/", 1));
        }
        let parts = vec![(kind::SET_DATA, set("/a/b", b"", -1)); 1000];
        zk.ok(s, kind::MULTI, &multi(&parts));
        (zk.renew(&[on_it]).1, zk.harness.root())
    };
    let (expects, does_not) = (run(true), run(false));
    assert_eq!(expects.0, 0);
    assert_eq!(expects, does_not);
}

/// An ACL of hundreds of long ids, and a client that has proved dozens of such: who they are is
/// compared once, and not for each part of a multi, which would take minutes.
#[test]
fn a_long_acl_is_looked_through_once() {
    let mut zk = Fixture::new();
    let s = zk.open(60_000);
    let user = "u".repeat(4000);
    for number in 0..64 {
        let auth = jute(|w| {
            w.int(0).text("digest").buffer(Some(format!("{user}:p{number:02}").as_bytes()));
        });
        zk.ok(s, kind::AUTH, &auth);
    }
    let own = acl::Id::prove("digest", format!("{user}:p63").as_bytes()).expect("credentials");
    let body = jute(|w| {
        w.text("/a").buffer(Some(b"")).count(250);
        for number in 0..249 {
            w.int(31).text("digest").text(&format!("{user}:{number:028}"));
        }
        w.int(31).text("digest").text(&own.id).int(0);
    });
    zk.ok(s, kind::CREATE, &body);
    let parts = vec![(kind::CHECK, path_int("/a", -1)); 50_000];
    let checked = zk.ok(s, kind::MULTI, &multi(&parts));
    assert!(checked.body.len() > 50_000 * 9, "all of them are there");
    // Nor for each event of its own.
    zk.ok(s, kind::ADD_WATCH, &path_int("/a", 0));
    let parts = vec![(kind::SET_DATA, set("/a", b"", -1)); 50_000];
    assert_eq!(zk.ok(s, kind::MULTI, &multi(&parts)).told().len(), 50_000);
    // Who may not is told so.
    let other = zk.open(60_000);
    let failed = zk.ok(other, kind::MULTI, &multi(&[(kind::CHECK, path_int("/a", -1))]));
    let mut r = JuteReader::new(&failed.body);
    assert_eq!((r.int("kind"), r.bool("done")), (Ok(-1), Ok(false)));
    assert_eq!(r.int("error"), Ok(ZkError::NoAuth.code()));
}

//! The service, request by request, as a gateway would ask.

use base::AgreedTime;
use exec::testing::Harness;
use exec::{Context, Service};

use super::acl;
use super::call::event;
use super::clock::PULSE_MS;
use super::jute::{JuteReader, JuteWriter};
use super::op::{Attachment, Event, Op, Outcome, Refusal};
use super::session::HEARD_GRAIN_MS;
use super::{ZkError, ZooKeeperService, kind};

mod room;
mod work;

const PASSWORD: [u8; 16] = [7; 16];

/// The service behind what a gateway would do.
pub(super) struct Fixture {
    pub(super) harness: Harness<ZooKeeperService>,
    now_ms: u64,
}

/// What a request came back with.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) error: i32,
    pub(super) zxid: i64,
    pub(super) body: Vec<u8>,
    pub(super) events: Vec<Event>,
}

/// What a stat tells, without what zxids and times are.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) version: i32,
    pub(super) cversion: i32,
    pub(super) aversion: i32,
    pub(super) owner: i64,
    pub(super) len: i32,
    pub(super) children: i32,
}

pub(super) fn jute(write: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut JuteWriter::new(&mut out));
    out
}

pub(super) fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    create_as(path, data, flags, "world", "anyone")
}

fn create_as(path: &str, data: &[u8], flags: i32, scheme: &str, id: &str) -> Vec<u8> {
    jute(|w| {
        w.text(path).buffer(Some(data)).count(1).int(31).text(scheme).text(id).int(flags);
    })
}

pub(super) fn path_int(path: &str, number: i32) -> Vec<u8> {
    jute(|w| {
        w.text(path).int(number);
    })
}

pub(super) fn watched(path: &str, watch: bool) -> Vec<u8> {
    jute(|w| {
        w.text(path).bool(watch);
    })
}

pub(super) fn set(path: &str, data: &[u8], version: i32) -> Vec<u8> {
    jute(|w| {
        w.text(path).buffer(Some(data)).int(version);
    })
}

fn stat(r: &mut JuteReader<'_>) -> Stat {
    (0..4).for_each(|_| {
        r.long("zxid or time").expect("a stat");
    });
    let int = |r: &mut JuteReader<'_>| r.int("number").expect("a stat");
    let (version, cversion, aversion) = (int(r), int(r), int(r));
    let owner = r.long("owner").expect("a stat");
    let (len, children) = (int(r), int(r));
    r.long("pzxid").expect("a stat");
    Stat { version, cversion, aversion, owner, len, children }
}

impl Response {
    fn text(&self) -> String {
        JuteReader::new(&self.body).text("text").expect("a text").to_owned()
    }

    pub(super) fn stat(&self) -> Stat {
        stat(&mut JuteReader::new(&self.body))
    }

    fn names(&self) -> Vec<String> {
        let names = JuteReader::new(&self.body).paths("names").expect("names");
        names.into_iter().map(str::to_owned).collect()
    }

    fn told(&self) -> Vec<(u8, &str)> {
        self.events.iter().map(|event| (event.kind, &*event.path)).collect()
    }
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        let mut fixture = Fixture { harness: Harness::new(ZooKeeperService::new()), now_ms: 0 };
        fixture.at(1_000_000);
        fixture
    }

    /// Agreed time becomes `ms`, in one step.
    fn at(&mut self, ms: u64) {
        self.now_ms = ms;
        self.harness.tick(AgreedTime(ms * 1_000_000));
    }

    /// Agreed time goes on by `ms` while the group runs: it orders a tick whenever one is due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self.harness.service_deadline_ms().filter(|due| *due <= end) {
            self.at(due.max(self.now_ms + 1));
        }
        self.at(end.max(self.now_ms));
    }

    pub(super) fn run<R>(&mut self, op: &Op<'_>, look: impl FnOnce(Outcome<'_>) -> R) -> R {
        let mut bytes = vec![];
        op.encode(&mut bytes);
        let result = self.harness.run(&bytes);
        look(Outcome::decode(&result).expect("an outcome"))
    }

    fn attach(&mut self, op: &Op<'_>) -> Result<Attachment, Refusal> {
        self.run(op, |outcome| match outcome {
            Outcome::Attached { to, .. } => Ok(to),
            Outcome::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        })
    }

    pub(super) fn open(&mut self, timeout_ms: u32) -> Attachment {
        self.attach(&Op::Open { password: PASSWORD, timeout_ms }).expect("room")
    }

    fn resume(&mut self, session: u64, password: [u8; 16]) -> Result<Attachment, Refusal> {
        let (timeout_ms, last_zxid) = (4000, 0);
        self.attach(&Op::Resume { session, password, timeout_ms, last_zxid })
    }

    pub(super) fn request(
        &mut self,
        from: Attachment,
        kind: i32,
        body: &[u8],
    ) -> Result<Response, Refusal> {
        self.run(&Op::Request { from, kind, body }, |outcome| match outcome {
            Outcome::Response { events, error, zxid, body } => {
                Ok(Response { error, zxid, body: body.to_vec(), events: events.list })
            }
            Outcome::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        })
    }

    /// A request is known to come, and what it touches is asked for.
    pub(super) fn expect(&self, from: Attachment, kind: i32, body: &[u8]) {
        let mut bytes = vec![];
        Op::Request { from, kind, body }.encode(&mut bytes);
        let mut footprint = exec::Footprint::default();
        exec::Service::footprint(&self.harness.service, &bytes, &mut footprint);
    }

    /// A request that is to succeed.
    pub(super) fn ok(&mut self, from: Attachment, kind: i32, body: &[u8]) -> Response {
        let response = self.request(from, kind, body).expect("attached");
        assert_eq!(response.error, 0);
        response
    }

    fn error(&mut self, from: Attachment, kind: i32, body: &[u8]) -> i32 {
        self.request(from, kind, body).expect("attached").error
    }

    /// What has happened to the sessions of the gateway, and which of those named are gone.
    pub(super) fn renew(&mut self, named: &[Attachment]) -> (Vec<(u64, Vec<Event>)>, usize) {
        self.run(&Op::Renew(named.to_vec()), |outcome| match outcome {
            Outcome::Happened { events, gone, .. } => {
                let list = events.into_iter().map(|((id, _), events)| (id, events.list));
                (list.collect(), gone.len())
            }
            other => panic!("{other:?}"),
        })
    }

    fn exists(&mut self, from: Attachment, path: &str) -> bool {
        self.error(from, kind::EXISTS, &watched(path, false)) == 0
    }
}

trait Deadline {
    fn service_deadline_ms(&self) -> Option<u64>;
}

impl Deadline for Harness<ZooKeeperService> {
    fn service_deadline_ms(&self) -> Option<u64> {
        exec::Service::deadline(&self.service).map(|at| at.0 / 1_000_000)
    }
}

#[test]
fn stats_tell_what_zookeeper_tells() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    let root = zk.ok(s, kind::EXISTS, &watched("/", false)).stat();
    assert_eq!((root.cversion, root.children, root.version), (-1, 1, 0));
    let made = zk.ok(s, kind::CREATE2, &create("/a", b"xyz", 0));
    assert_eq!(made.text(), "/a");
    zk.ok(s, kind::CREATE, &create("/a/b", b"", 0));
    zk.ok(s, kind::SET_DATA, &set("/a", b"longer", 0));
    assert_eq!(zk.error(s, kind::SET_DATA, &set("/a", b"", 0)), ZkError::BadVersion.code());
    zk.ok(s, kind::DELETE, &path_int("/a/b", -1));
    let a = zk.ok(s, kind::EXISTS, &watched("/a", false)).stat();
    let wanted = Stat { version: 1, cversion: 2, aversion: 0, owner: 0, len: 6, children: 0 };
    assert_eq!(a, wanted);
    zk.harness.root();
}

#[test]
fn suffixes_count_the_children_that_a_node_has_had() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    zk.ok(s, kind::CREATE, &create("/q", b"", 0));
    let name =
        |zk: &mut Fixture, flags| zk.ok(s, kind::CREATE, &create("/q/n-", b"", flags)).text();
    assert_eq!(name(&mut zk, 2), "/q/n-0000000000");
    assert_eq!(name(&mut zk, 3), "/q/n-0000000001");
    zk.ok(s, kind::CREATE, &create("/q/plain", b"", 0));
    zk.ok(s, kind::DELETE, &path_int("/q/n-0000000000", -1));
    assert_eq!(name(&mut zk, 2), "/q/n-0000000003");
    let names = zk.ok(s, kind::GET_CHILDREN, &watched("/q", false)).names();
    assert_eq!(names, ["n-0000000001", "n-0000000003", "plain"]);
}

#[test]
fn what_cannot_be_done_is_refused_as_zookeeper_refuses_it() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    zk.ok(s, kind::CREATE, &create("/e", b"", 1));
    zk.ok(s, kind::CREATE, &create("/a", b"", 0));
    zk.ok(s, kind::CREATE, &create("/a/b", b"", 0));
    let cases = [
        (kind::CREATE, create("/a", b"", 0), ZkError::NodeExists),
        (kind::CREATE, create("/x/y", b"", 0), ZkError::NoNode),
        (kind::CREATE, create("/e/y", b"", 0), ZkError::NoChildrenForEphemerals),
        (kind::CREATE, create("/a/", b"", 0), ZkError::BadArguments),
        (kind::CREATE, create("/a", b"", 9), ZkError::BadArguments),
        (kind::CREATE, create_as("/y", b"", 0, "ip", "127.0.0.1"), ZkError::InvalidAcl),
        (kind::DELETE, path_int("/a", -1), ZkError::NotEmpty),
        (kind::DELETE, path_int("/a/b", 3), ZkError::BadVersion),
        (kind::DELETE, path_int("/a/c", -1), ZkError::NoNode),
        (kind::DELETE, path_int("/", -1), ZkError::BadArguments),
        (kind::DELETE, path_int("/zookeeper", -1), ZkError::BadArguments),
        (kind::GET_DATA, watched("/c", true), ZkError::NoNode),
        (kind::SET_DATA, set("/zookeeper/config", b"", -1), ZkError::NoAuth),
        (kind::SASL, vec![], ZkError::Unimplemented),
        (kind::RECONFIG, vec![], ZkError::ReconfigDisabled),
        (kind::CREATE, vec![0, 0], ZkError::Marshalling),
        (kind::REMOVE_WATCHES, path_int("/a", 3), ZkError::NoWatcher),
    ];
    for (kind, body, error) in cases {
        assert_eq!(zk.error(s, kind, &body), error.code(), "{kind} {error:?}");
    }
    zk.harness.root();
}

#[test]
fn acls_let_in_whom_they_name() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(4000));
    let auth = |password: &str| {
        jute(|w| {
            w.int(0).text("digest").buffer(Some(password.as_bytes()));
        })
    };
    let made = create_as("/mine", b"secret", 0, "auth", "");
    assert_eq!(zk.error(s, kind::CREATE, &made), ZkError::InvalidAcl.code());
    zk.ok(s, kind::AUTH, &auth("me:pw"));
    zk.ok(s, kind::CREATE, &made);
    assert_eq!(zk.error(other, kind::GET_DATA, &watched("/mine", false)), ZkError::NoAuth.code());
    assert!(zk.exists(other, "/mine"));
    zk.ok(other, kind::AUTH, &auth("me:pw"));
    zk.ok(other, kind::GET_DATA, &watched("/mine", false));
    let sasl = jute(|w| {
        w.int(0).text("sasl").buffer(Some(b"x"));
    });
    assert_eq!(zk.error(other, kind::AUTH, &sasl), ZkError::AuthFailed.code());
    let acl = zk
        .ok(
            other,
            kind::GET_ACL,
            &jute(|w| {
                w.text("/mine");
            }),
        )
        .body;
    let entries = acl::read(&mut JuteReader::new(&acl)).expect("an ACL");
    assert!(entries[0].who.id.starts_with("me:") && entries[0].who.id.len() > 20);
    // Credentials belong to the connection.
    let other = zk.resume(other.0, PASSWORD).expect("its password");
    assert_eq!(zk.error(other, kind::GET_DATA, &watched("/mine", false)), ZkError::NoAuth.code());
    zk.harness.root();
}

fn multi(parts: &[(i32, Vec<u8>)]) -> Vec<u8> {
    jute(|w| {
        for (kind, body) in parts {
            w.int(*kind).bool(false).int(-1).raw(body);
        }
        w.int(-1).bool(true).int(-1);
    })
}

#[test]
fn a_multi_does_everything_or_nothing() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    zk.ok(s, kind::CREATE, &create("/a", b"1", 0));
    let nodes = |zk: &Fixture| {
        let mut all = vec![];
        (0..).take(super::state::OBJECTS as usize).skip(2049).for_each(|object| {
            exec::Service::get(&zk.harness.service, object, &mut all);
        });
        all
    };
    let before = nodes(&zk);
    let parts = [
        (kind::CREATE, create("/a/n-", b"", 2)),
        (kind::SET_DATA, set("/a", b"2", 0)),
        (kind::DELETE, path_int("/a/n-0000000000", 0)),
        (kind::CHECK, path_int("/a", 0)),
        (kind::CREATE, create("/b", b"", 0)),
    ];
    let failed = zk.ok(s, kind::MULTI, &multi(&parts));
    let mut r = JuteReader::new(&failed.body);
    let errors: Vec<i32> = (0..5)
        .map(|_| {
            assert_eq!((r.int("kind"), r.bool("done")), (Ok(-1), Ok(false)));
            let head = r.int("error").expect("an error");
            assert_eq!(r.int("error"), Ok(head));
            head
        })
        .collect();
    let rest = ZkError::RuntimeInconsistency.code();
    assert_eq!(errors, [0, 0, 0, ZkError::BadVersion.code(), rest]);
    assert_eq!(nodes(&zk), before, "nothing was done");
    zk.harness.root();
    zk.ok(s, kind::MULTI, &multi(&parts[..3]));
    assert_eq!(zk.ok(s, kind::GET_DATA, &watched("/a", false)).text(), "2");
    zk.harness.root();
}

#[test]
fn a_watch_fires_once_before_the_response_that_shows_the_change() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(4000));
    zk.request(s, kind::EXISTS, &watched("/a", true)).expect("attached");
    zk.ok(s, kind::GET_CHILDREN, &watched("/", true));
    zk.ok(other, kind::CREATE, &create("/a", b"", 0));
    assert_eq!(zk.harness.outputs.len(), 2, "the gateway is told to ask");
    let seen = zk.ok(s, kind::EXISTS, &watched("/a", true));
    assert_eq!(seen.told(), [(event::CREATED, "/a"), (event::CHILDREN, "/")]);
    zk.ok(other, kind::SET_DATA, &set("/a", b"1", -1));
    zk.ok(other, kind::SET_DATA, &set("/a", b"2", -1));
    let (told, _) = zk.renew(&[]);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0, told[0].1.len()), (s.0, 1), "once");
    assert_eq!(zk.renew(&[]).0, [], "and not again");
    // Whoever changes something itself is told, too, and has both watches used up by one event.
    zk.ok(s, kind::GET_DATA, &watched("/a", true));
    zk.ok(s, kind::GET_CHILDREN, &watched("/a", true));
    let gone = zk.ok(s, kind::DELETE, &path_int("/a", -1));
    assert_eq!(gone.told(), [(event::DELETED, "/a")]);
    assert_eq!(zk.harness.service.state().counts().watches, 0);
    zk.harness.root();
}

#[test]
fn persistent_watches_stay_and_recursive_ones_see_everything_below() {
    let mut zk = Fixture::new();
    let (s, deep) = (zk.open(4000), zk.open(4000));
    zk.ok(s, kind::ADD_WATCH, &path_int("/a", 0));
    zk.ok(deep, kind::ADD_WATCH, &path_int("/", 1));
    zk.ok(s, kind::CREATE, &create("/a", b"", 0));
    zk.ok(s, kind::CREATE, &create("/a/b", b"", 0));
    zk.ok(s, kind::SET_DATA, &set("/a", b"", -1));
    zk.ok(s, kind::SET_DATA, &set("/a/b", b"", -1));
    zk.ok(s, kind::DELETE, &path_int("/a/b", -1));
    let last = zk.ok(s, kind::DELETE, &path_int("/a", -1));
    assert_eq!(last.told(), [(event::DELETED, "/a")]);
    let told = zk.ok(
        deep,
        kind::SYNC,
        &jute(|w| {
            w.text("/");
        }),
    );
    let wanted = [
        (event::CREATED, "/a"),
        (event::CREATED, "/a/b"),
        (event::CHANGED, "/a"),
        (event::CHANGED, "/a/b"),
        (event::DELETED, "/a/b"),
        (event::DELETED, "/a"),
    ];
    assert_eq!(told.told(), wanted);
    zk.ok(deep, kind::REMOVE_WATCHES, &path_int("/", 3));
    zk.ok(s, kind::CREATE, &create("/a", b"", 0));
    assert_eq!(zk.renew(&[]).0, []);
    zk.harness.root();
}

#[test]
fn a_client_that_comes_back_learns_what_it_missed_and_watches_on() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(4000));
    for path in ["/data", "/gone", "/child", "/same"] {
        zk.ok(s, kind::CREATE, &create(path, b"", 0));
    }
    let seen = zk.ok(s, kind::EXISTS, &watched("/data", true)).zxid;
    zk.ok(other, kind::SET_DATA, &set("/data", b"", -1));
    zk.ok(other, kind::DELETE, &path_int("/gone", -1));
    zk.ok(other, kind::CREATE, &create("/child/c", b"", 0));
    zk.ok(other, kind::CREATE, &create("/new", b"", 0));
    let s = zk.resume(s.0, PASSWORD).expect("its password");
    let lists: [&[&str]; 3] = [&["/data", "/gone", "/same"], &["/new", "/none"], &["/child"]];
    let body = jute(|w| {
        w.long(seen);
        for list in lists {
            w.count(list.len());
            list.iter().for_each(|path| {
                w.text(path);
            });
        }
    });
    let back = zk.ok(s, kind::SET_WATCHES, &body);
    let wanted = [
        (event::CHANGED, "/data"),
        (event::DELETED, "/gone"),
        (event::CREATED, "/new"),
        (event::CHILDREN, "/child"),
    ];
    assert_eq!(back.told(), wanted);
    zk.ok(other, kind::SET_DATA, &set("/same", b"", -1));
    zk.ok(other, kind::CREATE, &create("/none", b"", 0));
    assert_eq!(zk.renew(&[]).0[0].1.len(), 2);
}

#[test]
fn a_session_moves_with_its_password_and_leaves_its_old_connection_without_effect() {
    let mut zk = Fixture::new();
    let old = zk.open(4000);
    zk.ok(old, kind::CREATE, &create("/e", b"", 1));
    assert_eq!(zk.resume(old.0, [0; 16]), Err(Refusal::Password));
    assert_eq!(zk.resume(old.0 + 1, PASSWORD), Err(Refusal::Expired));
    let ahead =
        Op::Resume { session: old.0, password: PASSWORD, timeout_ms: 4000, last_zxid: i64::MAX };
    assert_eq!(zk.attach(&ahead), Err(Refusal::Ahead));
    zk.harness.frame.client.0 += 1;
    let new = zk.resume(old.0, PASSWORD).expect("its password");
    let late = zk.request(old, kind::DELETE, &path_int("/e", -1));
    assert_eq!(late.err(), Some(Refusal::Moved));
    assert_eq!(zk.renew(&[old, new]).1, 1);
    // Knowing the numbers is not enough: the gateway must be the one that it is attached to.
    zk.harness.frame.client.0 -= 1;
    assert_eq!(zk.request(new, kind::CLOSE, &[]).err(), Some(Refusal::Moved));
    zk.harness.frame.client.0 += 1;
    assert!(zk.exists(new, "/e"));
    zk.ok(new, kind::CLOSE, &[]);
    assert_eq!(zk.resume(old.0, PASSWORD), Err(Refusal::Expired));
    assert_eq!(zk.harness.service.state().counts().ephemerals, 0);
    zk.harness.root();
}

#[test]
fn a_session_ends_when_its_client_is_silent_not_earlier_and_hardly_later() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(60_000));
    zk.ok(s, kind::CREATE, &create("/e", b"", 1));
    for _ in 0..5 {
        zk.pass(3900);
        assert_eq!(zk.renew(&[s]).1, 0, "it was renewed in time");
    }
    zk.pass(3990);
    assert!(zk.harness.service.state().session(s.0).is_some());
    zk.pass(HEARD_GRAIN_MS + PULSE_MS);
    assert_eq!(zk.renew(&[s]).1, 1, "it is over");
    assert!(!zk.exists(other, "/e"));
    assert_eq!(zk.request(s, kind::SYNC, &[]).err(), Some(Refusal::Expired));
    zk.harness.root();
}

/// A leader is lost; nothing is ordered for a minute, and then agreed time jumps with the first
/// batch, before which the service is woken.
#[test]
fn no_session_ends_because_the_group_stood_still() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    zk.pass(2500);
    zk.at(zk.now_ms + 60_000);
    assert_eq!(zk.renew(&[s]).1, 0, "its client could not be heard");
    zk.pass(3990);
    assert_eq!(zk.renew(&[s]).1, 0);
}

#[test]
fn containers_and_nodes_with_a_time_to_live_go_when_they_are_due() {
    let mut zk = Fixture::new();
    let s = zk.open(60_000);
    zk.ok(s, kind::CREATE_CONTAINER, &create("/c", b"", 4));
    let ttl = |path, ms: i64| [create(path, b"", 5), ms.to_be_bytes().to_vec()].concat();
    zk.ok(s, kind::CREATE_TTL, &ttl("/t", 5000));
    assert_eq!(zk.error(s, kind::CREATE_TTL, &ttl("/u", 0)), ZkError::BadArguments.code());
    let stat = zk.ok(s, kind::EXISTS, &watched("/t", false)).stat();
    assert_eq!(stat.owner, 0, "no session");
    let pass = |zk: &mut Fixture, ms: u64| {
        for _ in 0..ms / 1000 {
            zk.pass(1000);
            assert_eq!(zk.renew(&[s]).1, 0);
        }
    };
    pass(&mut zk, 4000);
    zk.ok(s, kind::SET_DATA, &set("/t", b"again", -1));
    pass(&mut zk, 4000);
    assert!(zk.exists(s, "/t"));
    pass(&mut zk, 70_000);
    assert!(!zk.exists(s, "/t") && zk.exists(s, "/c"), "a container without past stays");
    zk.ok(s, kind::CREATE, &create("/c/x", b"", 0));
    zk.ok(s, kind::DELETE, &path_int("/c/x", -1));
    pass(&mut zk, 50_000);
    assert!(zk.exists(s, "/c"));
    pass(&mut zk, 12_000);
    assert!(!zk.exists(s, "/c"));
    zk.harness.root();
}

#[test]
fn a_session_with_too_many_events_is_cut_off_and_misses_none() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(4000));
    zk.ok(s, kind::ADD_WATCH, &path_int("/", 1));
    zk.ok(other, kind::CREATE, &create("/a", b"", 0));
    for _ in 0..4096 {
        zk.ok(other, kind::SET_DATA, &set("/a", b"", -1));
    }
    assert_eq!(zk.renew(&[s]), (vec![], 1), "it is not told a part of it");
    assert!(zk.resume(s.0, PASSWORD).is_ok());
    zk.harness.root();
}

/// Nothing of it waits, and a client that was cut off for it would come back with the same.
#[test]
fn a_session_is_told_of_everything_that_its_own_request_does() {
    let mut zk = Fixture::new();
    let s = zk.open(4000);
    zk.ok(s, kind::ADD_WATCH, &path_int("/", 1));
    zk.ok(s, kind::CREATE, &create("/a", b"", 0));
    let parts = vec![(kind::SET_DATA, set("/a", b"", -1)); 5000];
    assert_eq!(zk.ok(s, kind::MULTI, &multi(&parts)).told().len(), 5000);
    assert!(zk.exists(s, "/a"), "its connection goes on");
    let long = "/".to_owned() + &"n".repeat(4090);
    assert_eq!(zk.error(s, kind::CREATE, &create(&long, b"", 2)), -8, "nobody could delete it");
}

#[test]
fn a_state_that_was_carried_over_goes_on_like_the_one_it_came_from() {
    let mut zk = Fixture::new();
    let (s, other) = (zk.open(4000), zk.open(60_000));
    zk.ok(s, kind::CREATE, &create("/a", &[5; 100], 0));
    zk.ok(s, kind::CREATE, &create("/a/e", b"", 1));
    zk.ok(s, kind::CREATE_CONTAINER, &create("/c", b"", 4));
    zk.ok(s, kind::ADD_WATCH, &path_int("/a", 1));
    zk.ok(other, kind::GET_CHILDREN, &watched("/a", true));
    let mut copy = Fixture { harness: zk.harness.transfer(ZooKeeperService::new()), ..zk };
    assert_eq!(copy.harness.service.state().counts(), zk.harness.service.state().counts());
    let script = |zk: &mut Fixture| {
        zk.ok(other, kind::SET_DATA, &set("/a", b"new", -1));
        let told = zk.renew(&[]);
        (0..9).for_each(|_| {
            zk.pass(500);
            zk.renew(&[other]);
        });
        let names = zk.ok(other, kind::GET_CHILDREN, &watched("/a", false)).names();
        (told, names, zk.harness.root(), zk.harness.service.state().counts())
    };
    let (here, there) = (script(&mut zk), script(&mut copy));
    assert_eq!(here, there);
    assert_eq!(here.1, Vec::<String>::new(), "the ephemeral node went with its session");
}

#[test]
fn nobody_fills_an_object_beyond_what_is_transferred() {
    let mut zk = Fixture::new();
    let s = zk.open(60_000);
    let bucket = super::state::node_bucket;
    let names = (0..).map(|i| format!("/n{i}")).filter(|name| bucket(name) == bucket("/n0"));
    let names: Vec<String> = names.take(6).collect();
    let large = vec![1; 900_000];
    for name in &names[..4] {
        zk.ok(s, kind::CREATE, &create(name, &large, 0));
    }
    assert_eq!(zk.error(s, kind::CREATE, &create(&names[4], &large, 0)), -125);
    assert!(!zk.exists(s, &names[4]) && zk.exists(s, &names[3]));
    zk.ok(s, kind::CREATE, &create(&names[4], b"", 0));
    assert_eq!(zk.error(s, kind::SET_DATA, &set(&names[4], &large, -1)), -125);
    // What becomes smaller is always allowed, and makes room.
    zk.ok(s, kind::SET_DATA, &set(&names[0], b"", -1));
    zk.ok(s, kind::SET_DATA, &set(&names[4], &large, -1));
    zk.ok(s, kind::DELETE, &path_int(&names[1], -1));
    zk.ok(s, kind::CREATE, &create(&names[5], &large, 0));
    zk.harness.root();
}

#[test]
fn a_session_watches_no_more_bytes_of_paths_than_it_may() {
    let mut zk = Fixture::new();
    let s = zk.open(60_000);
    let path = |i: u32| format!("/{i:04095}");
    for i in 0..4096 {
        assert_eq!(zk.error(s, kind::EXISTS, &watched(&path(i), true)), ZkError::NoNode.code());
    }
    let more = watched(&path(4096), true);
    assert_eq!(zk.error(s, kind::EXISTS, &more), ZkError::SystemError.code());
    zk.ok(s, kind::REMOVE_WATCHES, &path_int(&path(7), 3));
    assert_eq!(zk.error(s, kind::EXISTS, &more), ZkError::NoNode.code());
    let s = zk.resume(s.0, PASSWORD).expect("its password");
    assert_eq!(zk.error(s, kind::EXISTS, &watched(&path(7), true)), ZkError::NoNode.code());
    assert_eq!(zk.harness.service.state().counts().watches, 1);
}

/// State transfer carries no object of more than a GiB, and a client may choose its sessions.
#[test]
fn sessions_that_share_an_object_watch_no_more_than_it_holds() {
    let mut zk = Fixture::new();
    let bucket = |s: Attachment| super::state::session_bucket(s.0);
    let first = zk.open(60_000);
    let second = loop {
        let other = zk.open(60_000);
        if bucket(other) == bucket(first) {
            break other;
        }
        zk.ok(other, kind::CLOSE, &[]);
    };
    let path = |i: u32| watched(&format!("/{i:04095}"), true);
    for i in 0..4096 {
        assert_eq!(zk.error(first, kind::EXISTS, &path(i)), ZkError::NoNode.code());
    }
    for i in 0..1024 {
        assert_eq!(zk.error(second, kind::EXISTS, &path(i)), ZkError::NoNode.code());
    }
    assert_eq!(zk.error(second, kind::EXISTS, &path(1024)), ZkError::SystemError.code());
    zk.ok(first, kind::CLOSE, &[]);
    assert_eq!(zk.error(second, kind::EXISTS, &path(1024)), ZkError::NoNode.code());
    zk.harness.root();
}

/// A batch of more operations than there are numbers is none of a correct leader.
#[test]
fn nothing_is_executed_under_a_number_that_was_given_away() {
    let mut service = ZooKeeperService::new();
    let mut op = vec![];
    Op::Open { password: PASSWORD, timeout_ms: 60_000 }.encode(&mut op);
    let (mut tree, mut outputs) = (exec::ObjectTree::new(service.objects()), vec![]);
    let mut open = |index: u32| {
        let (seq, time) = (base::Seq(1), base::AgreedTime(1));
        let frame = base::FrameId {
            client: base::ClientId(0),
            session: base::SessionId(1),
            stream: 0,
            id: 1,
        };
        let mut ctx = Context::new(seq, index, time, frame, &mut tree, &mut outputs);
        let mut reply = vec![];
        service.execute(&op, &mut ctx, &mut reply);
        matches!(Outcome::decode(&reply), Ok(Outcome::Attached { .. }))
    };
    assert!(open(5) && open((1 << 23) - 1));
    assert!(!open((1 << 23) + 5), "the number of the first one");
    assert_eq!(service.state().counts().sessions, 2);
}

#[test]
fn a_principal_has_no_more_sessions_than_it_may_and_others_have_theirs() {
    let mut zk = Fixture::new();
    let first = zk.open(60_000);
    for _ in 1..super::service::SESSIONS_PER_PRINCIPAL_MAX {
        zk.open(60_000);
    }
    let one_more = Op::Open { password: PASSWORD, timeout_ms: 60_000 };
    assert_eq!(zk.attach(&one_more), Err(Refusal::Crowded));
    zk.harness.frame.client.0 += 1;
    assert!(zk.attach(&one_more).is_ok());
    zk.harness.frame.client.0 -= 1;
    zk.ok(first, kind::CLOSE, &[]);
    assert!(zk.attach(&one_more).is_ok());
}

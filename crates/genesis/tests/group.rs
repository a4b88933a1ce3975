//! The configuration file: what is read back, what is refused and how that is said.

use std::path::{Path, PathBuf};

use auth::Peer;
use base::{ClientId, Digest, PillarId, ReplicaId, Span, limits};
use genesis::{
    Address, Agreement, Batching, Bodies, Commits, GenesisError, Group, Idle, InitOptions, Leaders,
    LocalGroup, Reads, Repliers, Replies, Settings, Transport,
};

const FILE: &str = "/somewhere/group.toml";

fn group_text(options: &InitOptions) -> String {
    LocalGroup::generate(options).expect("legal options").group.to_toml()
}

fn sample() -> String {
    group_text(&InitOptions { pillars: 2, clients: 2, ..InitOptions::default() })
}

fn parse(text: &str) -> Result<Group, GenesisError> {
    Group::parse(text, Path::new(FILE))
}

/// The sample with the first line that begins with `key = ` made another one.
fn with(key: &str, line: &str) -> String {
    let text = sample();
    let old = text.lines().find(|l| l.starts_with(&format!("{key} = "))).expect("a known key");
    text.replacen(&format!("\n{old}\n"), &format!("\n{line}\n"), 1)
}

/// The field, value and remedy of a refusal.
fn refusal(text: &str) -> (String, String, String) {
    match parse(text) {
        Err(GenesisError::Field { path, field, value, remedy }) => {
            assert_eq!(path, PathBuf::from(FILE));
            (field, value, remedy)
        }
        other => panic!("not a refused field: {other:?}"),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let settings = Settings {
        agreement: Agreement::Pbft,
        leaders: Leaders::Fixed,
        commits: Commits::Piggybacked,
        replies: Replies::Digest,
        repliers: Repliers::Relieved,
        bodies: Bodies::Inline,
        tentative: true,
        reads: Reads::Unordered,
        idle: Idle::Ahead,
        checkpoint_interval: 32,
        window: 64,
        clock_skew_max: Span::millis(77),
        view_timeout: Span::millis(250),
        batching: Batching {
            frames_max: 5,
            bytes_max: 6_000,
            delay: Span::micros(70),
            in_flight_max: 8,
            unbatched: true,
        },
        partitions: 1,
        drills: true,
    };
    let options = InitOptions {
        name: "bank-1".to_owned(),
        service: "my_service".to_owned(),
        replicas: 7,
        faults: Some(1),
        pillars: 3,
        clients: 3,
        settings,
        initial_state: Some(Digest([7; 32])),
        ..InitOptions::default()
    };
    let written = LocalGroup::generate(&options).expect("legal").group;
    let read = parse(&written.to_toml()).expect("own text");
    assert_eq!(read.id(), written.id());
    assert_eq!((read.name(), read.service()), ("bank-1", "my_service"));
    assert_eq!((read.quorums().n(), read.quorums().f(), read.pillars()), (7, 1, 3));
    assert_eq!(*read.settings(), settings);
    assert_eq!(read.initial_state(), Some(Digest([7; 32])));
    assert_eq!(read.settings().batching.frames_limit(), 1);
    assert_eq!(read.replicas(), written.replicas());
    assert_eq!(read.clients(), written.clients());
    assert_eq!(read.directory().n(), 7);
    assert_eq!(read.client_named("client-2").map(|client| client.id), Some(ClientId(2)));
    assert_eq!(read.address(ReplicaId(2), PillarId(1)), Some(&Address::tcp("127.0.0.1", 7407)));
    assert_eq!(read.address(ReplicaId(2), PillarId(3)), None);
    assert_eq!(read.address(ReplicaId(7), PillarId(0)), None);
    assert_eq!(read.to_toml(), written.to_toml());
}

#[test]
fn partitions_are_groups_of_their_own_with_the_same_members() {
    let settings = Settings { partitions: 3, ..Settings::default() };
    let options = InitOptions { pillars: 2, settings, ..InitOptions::default() };
    let whole = LocalGroup::generate(&options).expect("legal").group;
    let text = whole.to_toml();
    assert!(text.contains("\npartitions = 3\n"), "{text}");
    assert!(!sample().contains("partitions"), "who has one does not see the word");
    let read = parse(&text).expect("own text");
    assert_eq!((read.id(), read.partitions(), read.partition()), (whole.id(), 3, None));
    assert_eq!(*read.settings(), settings);
    let parts = read.parts();
    let mut ids: Vec<_> = parts.iter().map(Group::id).chain([whole.id()]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "nothing of one means anything in another");
    let mut ports = Vec::new();
    for (number, part) in (0..).zip(&parts) {
        assert_eq!((part.partition(), part.partitions(), part.pillars()), (Some(number), 1, 2));
        assert_eq!(part.parts().len(), 1);
        assert_eq!(part.parts()[0].id(), part.id());
        assert_eq!(part.clients(), whole.clients());
        assert_eq!(part.directory().group(), part.id());
        for id in 0..4 {
            let keys = |group: &Group| *group.directory().replica(ReplicaId(id)).expect("there");
            assert_eq!(keys(part), keys(&whole));
        }
        ports.extend(part.replicas()[1].ports());
    }
    assert_eq!(ports, (7406..7412).collect::<Vec<u16>>(), "the second replica's, in turn");
    assert_eq!(ports, whole.replicas()[1].ports());
    // How many there are is part of who the group is.
    let fewer = InitOptions { settings: Settings { partitions: 2, ..settings }, ..options };
    let mut fewer = LocalGroup::generate(&fewer).expect("legal").group.to_toml();
    // The same members: what is left of the difference is the number.
    let members = fewer.find("\n[[replica]]").expect("written");
    fewer.truncate(members);
    let own = text.find("\n[[replica]]").expect("written");
    let tail = text[own..].lines().filter(|line| !line.starts_with("port"));
    let mut port = 9000;
    for line in tail {
        fewer.push_str(line);
        fewer.push('\n');
        if line.starts_with("host = ") {
            fewer.push_str(&format!("port = {port}\n"));
            port += 4;
        }
    }
    let fewer = parse(&fewer).expect("legal");
    assert_eq!(fewer.replicas()[2].keys, whole.replicas()[2].keys);
    assert_ne!(fewer.id(), whole.id());
    assert_ne!(fewer.parts()[0].id(), parts[0].id());
}

#[test]
fn what_partitions_do_not_go_with_is_refused() {
    let of = |partitions| Settings { partitions, ..Settings::default() };
    let refused = |options: &InitOptions| match LocalGroup::generate(options) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{options:?}"),
    };
    for partitions in [0, 65] {
        let options = InitOptions { settings: of(partitions), ..InitOptions::default() };
        assert!(refused(&options).contains("partitions"), "{partitions}");
    }
    let settings = Settings { agreement: Agreement::None, ..of(2) };
    let alone = InitOptions { replicas: 1, settings, ..InitOptions::default() };
    assert!(refused(&alone).contains("partitions one"));
    let initial_state = Some(Digest([1; 32]));
    let founded = InitOptions { initial_state, settings: of(2), ..InitOptions::default() };
    assert!(refused(&founded).contains("snapshot"));
}

#[test]
fn settings_that_are_not_there_have_their_defaults() {
    let mut text = sample();
    for key in ["checkpoint_interval", "window", "clock_skew_ms", "view_timeout_ms", "drills"] {
        let line = text.lines().find(|l| l.starts_with(&format!("{key} = "))).expect("written");
        text = text.replace(&format!("{line}\n"), "");
    }
    let (head, tail) = text.split_once("[batching]").expect("written");
    let members = tail.find("[[replica]]").expect("written");
    let group = parse(&format!("{head}{}", &tail[members..])).expect("defaults");
    assert_eq!(*group.settings(), Settings::default());
    // Whether a default was written down or left out makes no other group.
    assert_eq!(group.id(), parse(&group.to_toml()).expect("own text").id());
}

#[test]
fn a_small_window_makes_the_default_of_in_flight_small() {
    let text = with("checkpoint_interval", "checkpoint_interval = 4");
    let text = text.replace("\nwindow = 8192\n", "\nwindow = 8\n");
    let text = text.replace("\nin_flight_max = 8\n", "\n");
    let group = parse(&text).expect("the default gives way");
    assert_eq!(group.settings().batching.in_flight_max, 4);
}

#[test]
fn addresses_are_not_part_of_the_identity_and_all_else_is() {
    let text = sample();
    let id = parse(&text).expect("own text").id();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        parse(&text.replacen(from, to, 1)).expect("legal").id()
    };
    assert_eq!(changed("host = \"127.0.0.1\"", "host = \"replica-0.example\""), id);
    assert_eq!(changed("port = 7400", "port = 9400"), id);
    assert_eq!(changed("port = 7400", "ports = [9400, 9000]"), id);
    for (from, to) in [
        ("name = \"stylite\"", "name = \"stylitf\""),
        ("service = \"kv\"", "service = \"kw\""),
        ("faults = 1", "faults = 0"),
        ("pillars = 2", "pillars = 1"),
        ("checkpoint_interval = 128", "checkpoint_interval = 64"),
        ("window = 8192", "window = 4096"),
        ("clock_skew_ms = 5000", "clock_skew_ms = 5001"),
        ("view_timeout_ms = 1000", "view_timeout_ms = 999"),
        ("drills = false", "drills = true"),
        ("drills = false", &format!("drills = false\ninitial_state = \"{}\"", "ab".repeat(32))),
        ("frames_max = 256", "frames_max = 255"),
        ("bytes_max = 1048576", "bytes_max = 4194303"),
        ("delay_us = 0", "delay_us = 1"),
        ("in_flight_max = 8", "in_flight_max = 7"),
        ("unbatched = false", "unbatched = true"),
        ("name = \"client-1\"", "name = \"client-9\""),
    ] {
        assert_ne!(changed(from, to), id, "{to}");
    }
    let other_keys = sample();
    assert_ne!(parse(&other_keys).expect("own text").id(), id);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    for (key, line, full, meant) in [
        ("window", "windw = 2048", "windw", Some("window")),
        (
            "checkpoint_interval",
            "checkpoint-interval = 1",
            "checkpoint-interval",
            Some("checkpoint_interval"),
        ),
        ("frames_max", "max_frames = 1", "batching.max_frames", None),
        ("frames_max", "frame_max = 1", "batching.frame_max", Some("frames_max")),
        ("host", "hots = \"a\"", "replica.hots", Some("host")),
        ("service", "quux = 1", "quux", None),
    ] {
        match parse(&with(key, line)) {
            Err(GenesisError::UnknownKey { path, key, suggestion }) => {
                assert_eq!(path, PathBuf::from(FILE));
                assert_eq!((key.as_str(), suggestion.as_deref()), (full, meant));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let error = parse(&with("window", "windw = 1")).expect_err("unknown");
    let shown = "/somewhere/group.toml: unknown key `windw`; did you mean `window`?";
    assert_eq!(error.to_string(), shown);
}

#[test]
fn a_server_without_agreement_is_alone_and_another_group() {
    let alone = |agreement| {
        let settings = Settings { agreement, ..Settings::default() };
        InitOptions { replicas: 1, settings, ..InitOptions::default() }
    };
    let text = group_text(&alone(Agreement::None));
    let group = parse(&text).expect("legal");
    assert_eq!(group.settings().agreement, Agreement::None);
    let other = parse(&text.replace("\"none\"", "\"pbft\"")).expect("legal, too");
    assert_ne!(other.id(), group.id(), "it is agreed configuration");
    let (field, value, remedy) = refusal(&with("agreement", "agreement = \"none\""));
    assert_eq!((field.as_str(), value.as_str()), ("replicas", "4"));
    assert!(remedy.contains("1 replica"), "{remedy}");
}

#[test]
fn wrong_types_and_broken_text_are_syntax_errors_with_a_place() {
    for (line, word) in [
        ("window = \"many\"", "invalid type"),
        ("window = -1", "invalid value"),
        ("window = ", "line"),
        ("window = 1\nwindow = 2", "duplicate"),
    ] {
        match parse(&with("window", line)) {
            Err(GenesisError::Syntax { message, .. }) => {
                assert!(message.contains(word), "{line}: {message}");
                assert!(message.contains("line"), "{line}: {message}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let missing = sample().replace("\nservice = \"kv\"\n", "\n");
    assert!(matches!(parse(&missing), Err(GenesisError::Syntax { message, .. })
        if message.contains("missing field `service`")));
    assert!(matches!(parse(""), Err(GenesisError::Syntax { .. })));
}

#[test]
fn every_bound_is_checked_and_named() {
    for (key, bad, field) in [
        ("format", "2", "format"),
        ("name", "\"\"", "name"),
        ("name", "\"-x\"", "name"),
        ("name", "\"a b\"", "name"),
        ("name", "\"a\\u001b\"", "name"),
        ("service", "\"../kv\"", "service"),
        ("agreement", "\"raft\"", "agreement"),
        ("replicas", "0", "replicas"),
        ("replicas", "65", "replicas"),
        ("replicas", "5", "replicas"),
        ("faults", "2", "faults"),
        ("pillars", "0", "pillars"),
        ("pillars", "65", "pillars"),
        ("checkpoint_interval", "1", "checkpoint_interval"),
        ("checkpoint_interval", "65537", "checkpoint_interval"),
        ("window", "128", "window"),
        ("window", "1025", "window"),
        ("window", "0", "window"),
        ("window", "262144", "window"),
        ("view_timeout_ms", "49", "view_timeout_ms"),
        ("view_timeout_ms", "60001", "view_timeout_ms"),
        ("drills", "false\ninitial_state = \"abc\"", "initial_state"),
        ("clock_skew_ms", "0", "clock_skew_ms"),
        ("clock_skew_ms", "3600001", "clock_skew_ms"),
        ("frames_max", "0", "batching.frames_max"),
        ("frames_max", "1025", "batching.frames_max"),
        ("bytes_max", "1023", "batching.bytes_max"),
        ("bytes_max", "67108865", "batching.bytes_max"),
        ("delay_us", "1000001", "batching.delay_us"),
        ("in_flight_max", "0", "batching.in_flight_max"),
        ("in_flight_max", "4097", "batching.in_flight_max"),
        ("host", "\"\"", "replica 0 host"),
        ("host", "\"a:7400\"", "replica 0 host"),
        ("host", "\"a b\"", "replica 0 host"),
        ("port", "0", "replica 0 port"),
        ("port", "65535", "replica 0 port"),
        ("port", "7401", "replica 1 port"),
        ("ed25519", "\"00\"", "replica 0 ed25519"),
        ("x25519", "\"zz\"", "replica 0 x25519"),
        ("certificate", "\"\"", "replica 0 certificate"),
    ] {
        let (found, value, remedy) = refusal(&with(key, &format!("{key} = {bad}")));
        assert_eq!(found, field, "{key} = {bad}");
        assert!(!value.is_empty() && !remedy.is_empty());
        assert!(!value.contains('\u{1b}'), "no control characters reach a terminal");
    }
}

#[test]
fn every_bound_itself_is_legal() {
    for (key, good) in [
        ("checkpoint_interval", "2"),
        ("window", "1024"),
        ("window", "32768"),
        ("view_timeout_ms", "50"),
        ("view_timeout_ms", "60000"),
        ("clock_skew_ms", "1"),
        ("clock_skew_ms", "3600000"),
        ("frames_max", "1"),
        ("frames_max", "1024"),
        ("bytes_max", "1024"),
        ("bytes_max", "67108864"),
        ("delay_us", "1000000"),
        ("in_flight_max", "1"),
        ("in_flight_max", "256"),
        ("faults", "0"),
        ("host", "\"::1\""),
        ("port", "1"),
        ("port", "65534"),
    ] {
        let parsed = parse(&with(key, &format!("{key} = {good}")));
        assert!(parsed.is_ok(), "{key} = {good}: {:?}", parsed.err());
    }
    for (n, f, pillars) in [(1, 0, 1), (4, 1, 64), (64, 21, 1)] {
        assert!(Group::for_test(n, f, pillars, "echo").is_ok(), "{n} {f} {pillars}");
    }
}

#[test]
fn ports_are_one_base_or_one_each() {
    let ports = |line: &str| with("port", line);
    let group = parse(&ports("ports = [9001, 8001]")).expect("one each");
    assert_eq!(group.address(ReplicaId(0), PillarId(1)), Some(&Address::tcp("127.0.0.1", 8001)));
    assert_eq!(refusal(&ports("ports = [9001]")).0, "replica 0 ports");
    assert_eq!(refusal(&ports("ports = [9001, 9001]")).0, "replica 0 port");
    assert_eq!(refusal(&ports("ports = [9001, 0]")).0, "replica 0 port");
    assert_eq!(refusal(&ports("port = 9001\nports = [9001, 9002]")).0, "replica 0 port");
    assert_eq!(refusal(&sample().replacen("port = 7400\n", "", 1)).0, "replica 0 port");
}

#[test]
fn members_are_checked_against_one_another() {
    let text = sample();
    assert_eq!(refusal(&text.replacen("id = 1\n", "id = 2\n", 1)).0, "replica.id");
    let twice = text.replace("name = \"client-1\"", "name = \"client-0\"");
    assert_eq!(refusal(&twice).0, "client 1 name");
    let (head, last) = text.rsplit_once("[[client]]").expect("clients");
    let same_id = format!("{head}[[client]]{}", last.replacen("id = 1", "id = 0", 1));
    assert_eq!(refusal(&same_id).0, "client.id");
    // The key of client 1 under another number: its certificate says otherwise.
    let moved = format!("{head}[[client]]{}", last.replacen("id = 1", "id = 9", 1));
    match parse(&moved) {
        Err(GenesisError::Keys { source, .. }) => {
            assert_eq!(source, auth::AuthError::Certificate(Peer::Client(ClientId(9))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fault_bound_that_does_not_hold_is_explained() {
    let (_, value, remedy) = refusal(&with("faults", "faults = 2"));
    assert_eq!(value, "2");
    let expected = "4 replicas tolerate at most 1 faults (n >= 3f + 1); set faults = 1 or use 7 \
                    replicas";
    assert_eq!(remedy, expected);
}

#[test]
fn test_groups_have_keys_in_memory_and_take_their_addresses_later() {
    let LocalGroup { mut group, replicas, clients } =
        Group::for_test(4, 1, 2, "echo").expect("legal");
    assert_eq!((replicas.len(), clients.len()), (4, 2));
    let shown = format!("{replicas:?} {clients:?}");
    assert_eq!(shown.replace("Secret(..)", "").replace(", ", ""), "[] []");
    let peer = Peer::Replica(ReplicaId(3));
    assert_eq!(Some(&replicas[3].public(peer)), group.directory().peer(peer));
    assert_eq!(group.address(ReplicaId(3), PillarId(1)), Some(&Address::tcp("127.0.0.1", 0)));
    let id = group.id();
    group.set_address(ReplicaId(3), "localhost", &[4001, 5001]).expect("one port each");
    assert_eq!(group.address(ReplicaId(3), PillarId(1)), Some(&Address::tcp("localhost", 5001)));
    assert_eq!(group.id(), id);
    for (replica, host, ports) in
        [(4, "localhost", &[1, 2][..]), (0, "no host", &[1, 2]), (0, "localhost", &[1])]
    {
        let error = group.set_address(ReplicaId(replica), host, ports);
        assert!(matches!(error, Err(GenesisError::Field { .. })), "{replica} {host} {ports:?}");
    }
}

#[test]
fn illegal_options_are_refused_before_keys_are_made() {
    let legal = InitOptions::default();
    let field = |options: &InitOptions| match LocalGroup::generate(options) {
        Err(GenesisError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&InitOptions { replicas: 0, ..legal.clone() }), "replicas");
    assert_eq!(field(&InitOptions { replicas: 65, ..legal.clone() }), "replicas");
    assert_eq!(field(&InitOptions { pillars: 0, ..legal.clone() }), "pillars");
    let clients = u32::try_from(limits::CLIENTS_MAX).expect("small") + 1;
    assert_eq!(field(&InitOptions { clients, ..legal.clone() }), "clients");
    assert_eq!(field(&InitOptions { faults: Some(2), ..legal.clone() }), "faults");
    let hosts = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(field(&InitOptions { hosts, ..legal.clone() }), "hosts");
    assert_eq!(field(&InitOptions { hosts: vec![], ..legal.clone() }), "hosts");
    // The fourth replica would be beyond the last port.
    assert_eq!(field(&InitOptions { port: 65_533, ..legal.clone() }), "port");
    assert!(LocalGroup::generate(&InitOptions { port: 65_532, ..legal }).is_ok());
}

#[test]
fn replicas_on_hosts_of_their_own_share_a_port() {
    let hosts = ["a", "b", "a", "c"].map(str::to_owned).to_vec();
    let options = InitOptions { hosts, pillars: 2, ..InitOptions::default() };
    let group = LocalGroup::generate(&options).expect("legal").group;
    let addresses: Vec<_> =
        (0..4).map(|r| group.address(ReplicaId(r), PillarId(0)).expect("a replica")).collect();
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a:7400", "b:7400", "a:7402", "c:7400"]);
}

/// A sample whose replica 0 listens where `lines` say.
fn at(lines: &str) -> String {
    sample().replacen("host = \"127.0.0.1\"\nport = 7400\n", lines, 1)
}

#[test]
fn each_pillar_may_have_an_address_of_its_own() {
    let sample = sample();
    let lines = "addresses = [\"10.0.0.1:9000\", \"unix:/run/a.sock\"]\n";
    let text = sample.replacen("host = \"127.0.0.1\"\nport = 7400\n", lines, 1);
    let group = parse(&text).expect("one each");
    let shown = |group: &Group| group.replicas()[0].place();
    assert_eq!(shown(&group), "10.0.0.1:9000, unix:/run/a.sock");
    assert_eq!(group.replicas()[0].host_and_ports(), None);
    assert_eq!(
        (group.transport(), group.replicas()[1].transport()),
        (Transport::Unix, Transport::Tcp)
    );
    assert_eq!(group.id(), parse(&sample).expect("legal").id(), "addresses are not agreed");
    let again = parse(&group.to_toml()).expect("what is written is read");
    assert_eq!(shown(&again), shown(&group));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let told = |lines: &str| refusal(&at(lines));
    let one = told("addresses = [\"a:1\"]\n");
    assert_eq!((one.0.as_str(), one.1.as_str()), ("replica 0 addresses", "1"));
    let twice = told("addresses = [\"unix:/a\", \"unix:/a\"]\n");
    assert!(twice.2.contains("this socket already"), "{twice:?}");
    assert_eq!(told("addresses = [\"a:1\", \"a:1\"]\n").0, "replica 0 port");
    assert_eq!(told("addresses = [\"a:1\", \"127.0.0.1:7402\"]\n").0, "replica 1 port");
    let both = told("host = \"a\"\nport = 1\naddresses = [\"a:1\", \"a:2\"]\n");
    assert_eq!(both.0, "replica 0 host");
    assert_eq!(told("").0, "replica 0 host");
    let long = format!("addresses = [\"a:1\", \"unix:/{}\"]\n", "x".repeat(107));
    assert!(told(&long).2.contains("shorter"), "{long}");
}

#[test]
fn pillars_take_the_interfaces_of_a_host_in_turn() {
    let hosts = vec!["127.0.0.1+127.0.0.2".to_owned()];
    let options = InitOptions { hosts, pillars: 3, ..InitOptions::default() };
    let group = LocalGroup::generate(&options).expect("legal").group;
    let place = |replica: usize| group.replicas()[replica].place();
    assert_eq!(place(0), "127.0.0.1:7400, 127.0.0.2:7400, 127.0.0.1:7401");
    assert_eq!(place(1), "127.0.0.1:7402, 127.0.0.2:7401, 127.0.0.1:7403");
    let text = group.to_toml();
    assert_eq!(parse(&text).expect("legal").replicas(), group.replicas());
    let refused = LocalGroup::generate(&InitOptions { pillars: 1, ..options });
    assert!(refused.is_err_and(|error| error.to_string().contains("more interfaces")));
}

#[test]
fn sockets_are_files_of_one_directory() {
    let options = InitOptions {
        transport: Transport::Unix,
        sockets: Some(PathBuf::from("/run/stylite")),
        pillars: 2,
        ..InitOptions::default()
    };
    let group = LocalGroup::generate(&options).expect("legal").group;
    assert_eq!(
        group.address(ReplicaId(3), PillarId(1)),
        Some(&Address::Unix(PathBuf::from("/run/stylite/3-1.sock")))
    );
    let sockets = Some(PathBuf::from(format!("/{}", "d".repeat(100))));
    let refused = LocalGroup::generate(&InitOptions { sockets, ..options });
    assert!(refused.is_err_and(|error| error.to_string().contains("shorter directory")));
}

#[test]
fn no_beginning_of_a_configuration_is_one() {
    let text = sample();
    // From the first client on, a cut between two tables leaves a smaller group, and a legal one.
    let clients = text.find("[[client]]").expect("clients");
    let last_key = text[..clients].rfind("certificate = ").expect("replicas");
    for cut in (0..last_key).step_by(5) {
        assert!(parse(&text[..cut]).is_err(), "{cut} bytes");
    }
    for cut in clients..text.len() - 1 {
        if let Ok(group) = parse(&text[..cut]) {
            assert!(group.clients().len() < 2, "{cut} bytes");
        }
    }
}

//! Whole groups in one process over loopback TCP.

mod common;

use common::Cluster;
use rt::ReplicaState;

/// Every replica answers and ends with the same digest, whatever lives on which thread.
fn serves(n: u16, pillars: u16, threads: usize) {
    let cluster = Cluster::start(n, pillars, threads, &[]);
    cluster.client(0, 1).open().drive(pillars, 60, 8);
    cluster.settle(u64::from(pillars) * 60 * 8);
    cluster.wait_for_each("a stable checkpoint", |r| r.checkpoint.stable > 0);
    for report in cluster.reports() {
        assert_eq!(report.misbehaviour.iter().sum::<u64>(), 0, "{report:#?}");
        assert_eq!(report.links.malformed + report.links.impostors, 0, "{report:#?}");
    }
}

#[test]
fn four_replicas_with_one_pillar_on_one_thread() {
    serves(4, 1, 1);
}

#[test]
fn four_replicas_with_one_pillar_and_a_thread_for_the_stage() {
    serves(4, 1, 2);
}

#[test]
fn four_replicas_with_two_pillars_on_one_thread() {
    serves(4, 2, 1);
}

#[test]
fn four_replicas_with_two_pillars_and_a_thread_for_the_stage() {
    serves(4, 2, 3);
}

#[test]
fn four_replicas_with_four_pillars_on_two_threads() {
    serves(4, 4, 2);
}

#[test]
fn seven_replicas_with_two_pillars_on_one_thread() {
    serves(7, 2, 1);
}

#[test]
fn seven_replicas_with_four_pillars_on_five_threads() {
    serves(7, 4, 5);
}

#[test]
fn a_single_replica_is_a_group_of_one() {
    serves(1, 2, 1);
}

/// The same around another core: order is what comes, whatever lives on which thread.
#[test]
fn a_server_without_agreement_serves_its_clients() {
    for (pillars, threads) in [(1, 1), (1, 2), (2, 3), (4, 2)] {
        let mut options = common::options(1, pillars);
        options.settings.agreement = genesis::Agreement::None;
        let mut cluster = Cluster::prepare(&options, threads);
        cluster.start_all(&[]);
        cluster.client(0, 1).open().drive(pillars, 60, 8);
        cluster.settle(u64::from(pillars) * 60 * 8);
        cluster.wait_for_each("a stable checkpoint", |r| r.checkpoint.stable > 0);
        let report = &cluster.reports()[0];
        assert_eq!(report.state, ReplicaState::Running);
        assert_eq!(report.misbehaviour, [0], "{report:#?}");
        cluster.stop_one(0);
        let again = cluster.try_start(0, None).expect_err("its state is gone");
        assert!(again.to_string().contains("nobody to fetch it from"), "{again}");
    }
}

#[test]
fn clients_on_one_pillar_do_not_wait_for_idle_ones() {
    let cluster = Cluster::start(4, 4, 2, &[]);
    let mut client = cluster.client(0, 1).open();
    for _ in 0..20 {
        let id = client.send(2, &[b"alone"]);
        client.await_reply(id);
    }
    cluster.settle(20);
}

#[test]
fn backups_may_be_down_from_the_start() {
    let cluster = Cluster::start(4, 2, 1, &[3]);
    cluster.client(0, 1).open().drive(2, 60, 4);
    cluster.settle(480);
    cluster.wait_for_each("the links", |r| r.pillars[0].peers_up == 2);
    let cluster = Cluster::start(7, 1, 1, &[4, 6]);
    cluster.client(0, 1).open().drive(1, 60, 4);
    cluster.settle(240);
}

#[test]
fn too_few_replicas_know_that_they_are_isolated() {
    let cluster = Cluster::start(4, 1, 1, &[2, 3]);
    cluster.wait("the link", |all| all.iter().all(|r| r.pillars[0].peers_up == 1));
    assert!(cluster.reports().iter().all(|r| r.state == ReplicaState::Isolated));
}

#[test]
fn what_a_client_does_not_send_to_a_replica_is_fetched_from_the_others() {
    let cluster = Cluster::start(4, 2, 1, &[]);
    for (session, skipped) in [(1, 3), (2, 1)] {
        let mut client = cluster.client(0, session).open();
        client.skip = Some(skipped);
        client.drive(2, 20, 4);
    }
    cluster.settle(320);
}

#[test]
fn operations_of_megabytes_pass_in_both_directions() {
    let cluster = Cluster::start(4, 1, 2, &[]);
    let mut client = cluster.client(0, 1).open();
    for len in [base::limits::OP_BYTES_MAX, 1 << 20, 70_000, 0] {
        let op: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let id = client.send(0, &[&op]);
        let reply = client.await_reply(id);
        assert!(reply.results().all(|result| result[8..] == op[..]), "{len}");
        // The same through the links between replicas.
        client.skip = Some(2);
    }
    cluster.settle(4);
}

#[test]
fn two_principals_and_two_sessions_get_their_own_replies() {
    let cluster = Cluster::start(4, 2, 2, &[]);
    let mut clients =
        [cluster.client(0, 1).open(), cluster.client(1, 1).open(), cluster.client(0, 2).open()];
    for round in 0..20 {
        let ids: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(i, client)| {
                let op = format!("round {round} of {i}");
                (client.send((i % 2) as u16, &[op.as_bytes()]), op)
            })
            .collect();
        for (client, (id, op)) in clients.iter_mut().zip(ids) {
            let reply = client.await_reply(id);
            assert!(reply.results().all(|result| &result[8..] == op.as_bytes()));
        }
    }
    cluster.settle(60);
}

#[test]
fn a_stopping_replica_says_goodbye_and_the_others_go_on() {
    let mut cluster = Cluster::start(4, 1, 1, &[]);
    {
        let mut client = cluster.client(0, 1).open();
        client.drive(1, 20, 1);
    }
    cluster.stop_one(2);
    {
        let mut client = cluster.client(0, 2).open();
        client.drive(1, 20, 1);
        assert_eq!(client.goodbyes, 0, "a new session knows nothing of the one that left");
    }
    cluster.settle(40);
    cluster.wait_for_each("the links", |r| r.pillars[0].peers_up == 2);
}

#[test]
fn goodbye_reaches_a_connected_client() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut client = cluster.client(0, 1).open();
    client.drive(1, 5, 1);
    let identity = client.identity.clone();
    let to = (base::ReplicaId(0), base::PillarId(0));
    let mut wire =
        common::Wire::connect(&cluster.group, &identity, to, base::SessionId(9)).expect("a link");
    wire.send(&base::packet::PacketKind::StatusQuery.alone()).expect("sent");
    wire.receive().expect("connected for good");
    drop(client);
    let Cluster { replicas, .. } = cluster;
    replicas.into_iter().flatten().for_each(rt::Replica::stop);
    let packet = wire.receive().expect("a last packet");
    assert_eq!(packet, base::packet::PacketKind::Goodbye.alone());
    assert_eq!(wire.receive(), None);
}

#[test]
fn status_is_answered_as_json_on_a_client_link() {
    let cluster = Cluster::start(4, 2, 2, &[]);
    let mut client = cluster.client(0, 1).open();
    client.drive(2, 10, 2);
    cluster.settle(40);
    let to = (base::ReplicaId(1), base::PillarId(1));
    let session = base::SessionId(7);
    let mut wire = common::Wire::connect(&cluster.group, &client.identity, to, session)
        .expect("the replica is up");
    wire.send(&base::packet::PacketKind::StatusQuery.alone()).expect("sent");
    let packet = wire.receive().expect("an answer");
    let (kind, json) = base::packet::PacketKind::split(&packet).expect("a packet");
    assert_eq!(kind, base::packet::PacketKind::Status);
    let report: rt::ReplicaReport = serde_json::from_slice(json).expect("a report");
    assert_eq!((report.id, report.ops, report.pillars.len()), (1, 40, 2));
    assert_eq!(report.state, ReplicaState::Running);
}

#[test]
fn a_link_that_breaks_comes_back_and_so_does_a_replica() {
    let mut cluster = Cluster::start(4, 2, 1, &[]);
    cluster.client(0, 1).open().drive(2, 10, 1);
    let before = cluster.reports()[3].process.incarnation;
    // The last replica dials all others, the second is dialled by two and dials one.
    for id in [3, 1] {
        cluster.stop_one(id);
        cluster.start_one(id, None);
        cluster.wait("all links", |all| {
            all.iter().all(|r| r.pillars.iter().all(|pillar| pillar.peers_up == 3))
        });
    }
    assert!(cluster.reports()[3].process.incarnation > before);
}

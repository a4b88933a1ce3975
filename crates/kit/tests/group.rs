//! The client against whole groups in this process: real threads, sockets, keys and votes.

use std::time::Duration;

use kit::{
    CallError, Client, ClientId, Completion, ConnectError, Context, LocalGroup, Malformed, Reader,
    ReplicaId, Service, StatusError, Writer, blocking,
};

/// Remembers how many operations it has seen, and says so: every result is another one.
#[derive(Default)]
struct Tally {
    count: u64,
}

impl Service for Tally {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ctx.modify(0, |out| self.get(0, out));
        self.count += 1;
        Writer::new(reply).u64(self.count).bytes(op);
        Completion::Done
    }

    fn get(&self, _object: u32, out: &mut Vec<u8>) {
        Writer::new(out).u64(self.count);
    }

    fn put(&mut self, _object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.count = Reader::new(bytes).u64("tally")?;
        Ok(())
    }
}

fn place(result: &[u8]) -> u64 {
    Reader::new(result).u64("place").expect("results begin with it")
}

/// Begins `count` operations on `streams` streams; checks that each is executed once, that each
/// stream's are in order, and that results belong to their operations. `before` were executed.
fn exercise(client: &blocking::Client, before: u64, count: u64, streams: u32) {
    let stream = |at: u64| u32::try_from(at % u64::from(streams)).expect("below");
    let calls: Vec<_> = (0..count).map(|at| client.begin(stream(at), at.to_le_bytes())).collect();
    let mut last = vec![0; streams as usize];
    let mut places = vec![];
    for (at, call) in (0..count).zip(calls) {
        let result = call.wait().expect("a result");
        assert_eq!(result[8..], at.to_le_bytes());
        let place = place(&result);
        assert!(place > last[stream(at) as usize], "stream {} is out of order", stream(at));
        last[stream(at) as usize] = place;
        places.push(place);
    }
    places.sort_unstable();
    assert_eq!(places, (before + 1..=before + count).collect::<Vec<_>>());
}

#[test]
fn groups_of_every_shape_execute_each_operation_once_and_in_order() {
    for (replicas, pillars) in [(1, 1), (4, 1), (4, 2), (4, 4), (7, 2)] {
        let builder = LocalGroup::builder(Tally::default);
        let group = builder.replicas(replicas).pillars(pillars).start().unwrap();
        let client = group.blocking_client().unwrap();
        exercise(&client, 0, 2000, 9);
        assert_eq!(client.stats().wrong_replies, vec![0; usize::from(replicas)]);
        drop(client);
        group.stop();
    }
}

#[test]
fn unbatched_operations_get_through_as_well() {
    let group = LocalGroup::builder(Tally::default).start().unwrap();
    let mut options = group.client_options(ClientId(1)).unwrap();
    options.unbatched = true;
    let client = blocking::Client::connect(options).unwrap();
    exercise(&client, 0, 300, 4);
    assert!(client.stats().counters.frames >= 300);
}

#[test]
fn clients_of_the_same_and_of_other_principals_do_not_disturb_each_other() {
    let group = LocalGroup::builder(Tally::default).pillars(2).start().unwrap();
    std::thread::scope(|scope| {
        for principal in [0, 0, 0, 1, 2, 3] {
            let group = &group;
            scope.spawn(move || {
                let options = group.client_options(ClientId(principal)).unwrap();
                let client = blocking::Client::connect(options).unwrap();
                for at in 0..100u64 {
                    assert_eq!(client.call(at.to_le_bytes()).unwrap()[8..], at.to_le_bytes());
                }
            });
        }
    });
    let client = group.blocking_client().unwrap();
    assert_eq!(place(&client.call(b"").unwrap()), 601, "each once");
    assert!(group.client_options(ClientId(4)).is_none());
}

#[test]
fn it_goes_on_with_f_replicas_down_and_says_so_beyond() {
    let mut group = LocalGroup::builder(Tally::default).pillars(2).start().unwrap();
    let client = group.blocking_client().unwrap();
    exercise(&client, 0, 500, 5);
    // The leader of the first view.
    assert!(group.stop_replica(ReplicaId(0)));
    assert!(!group.stop_replica(ReplicaId(0)));
    exercise(&client, 500, 500, 5);
    // A client that comes later does not miss it either.
    let mut options = group.client_options(ClientId(1)).unwrap();
    let late = blocking::Client::connect(options.clone()).unwrap();
    exercise(&late, 1000, 500, 5);
    assert!(late.stats().reachable < 4);
    assert!(group.stop_replica(ReplicaId(2)));
    options.connect_timeout = Duration::from_millis(700);
    let error = blocking::Client::connect(options).unwrap_err();
    assert!(matches!(error, ConnectError::Unavailable { needed: 3, .. }), "{error}");
}

#[test]
fn replicas_come_back_one_after_the_other_with_and_without_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let in_memory = LocalGroup::builder(Tally::default);
    let on_disk = LocalGroup::builder(Tally::default).disk(kit::Durability::Sync, dir.path());
    for builder in [in_memory, on_disk] {
        let mut group = builder.start().unwrap();
        let client = group.blocking_client().unwrap();
        for round in 0..4u16 {
            let id = ReplicaId(round);
            assert!(!group.start_replica(id).unwrap(), "it is running");
            assert!(group.stop_replica(id));
            exercise(&client, u64::from(round) * 200, 200, 5);
            assert!(group.start_replica(id).unwrap());
            let voting = || !group.report(id).unwrap().group.recovering;
            let mut patience = 0..6_000;
            while !voting() {
                assert!(patience.next().is_some(), "{:#?}", group.report(id));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        group.stop();
    }
}

#[test]
fn too_few_replicas_end_calls_with_the_cause() {
    let mut group = LocalGroup::builder(Tally::default).start().unwrap();
    let mut options = group.client_options(ClientId(0)).unwrap();
    options.request_timeout = Duration::from_millis(700);
    let client = blocking::Client::connect(options).unwrap();
    assert!(group.stop_replica(ReplicaId(2)));
    assert!(group.stop_replica(ReplicaId(3)));
    let error = client.call(b"x").unwrap_err();
    assert_eq!(error, CallError::Unavailable { reachable: 2, needed: 3 });
}

#[tokio::test]
async fn the_asynchronous_client_and_its_pipe_work_on_one_thread() {
    let group = LocalGroup::builder(Tally::default).pillars(2).start().unwrap();
    let client: Client = group.client().await.unwrap();
    assert_eq!(place(&client.call(0, b"x").await.unwrap()), 1);
    let (submitter, mut completions) = client.pipe();
    for tag in 0..3000u64 {
        submitter.submit(0, b"y", tag).unwrap();
    }
    let mut next = 0;
    while next < 3000 {
        for completion in completions.recv().await.unwrap() {
            assert_eq!(completion.tag, next);
            assert_eq!(place(&completion.result.unwrap()), next + 2);
            next += 1;
        }
    }
    // A quorum of links is enough for calls; this one may come up later.
    let status = loop {
        match client.status(ReplicaId(2)).await {
            Err(StatusError::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            status => break status.unwrap(),
        }
    };
    assert!(status.starts_with('{') && status.ends_with('}'), "{status}");
    client.close().await;
    group.stop();
}

#[test]
fn results_and_operations_may_be_large() {
    let group = LocalGroup::builder(Tally::default).start().unwrap();
    let client = group.blocking_client().unwrap();
    let op = vec![7; 2 << 20];
    let calls: Vec<_> = (0..8).map(|_| client.begin(0, &op)).collect();
    for call in calls {
        assert!(call.wait().unwrap()[8..] == op);
    }
}

//! The driver against replicas that only pretend: sockets, links, timeouts, channels.

mod fake;

use std::time::Duration;

use client::{Batch, CallError, Client, ConnectError, ReplicaId, StatusError, blocking};
use fake::FakeGroup;

#[tokio::test]
async fn calls_of_many_tasks_get_their_own_results() {
    let group = FakeGroup::start(4, 1, 2).await;
    let mut options = group.options();
    // As long as no replica fails, nothing waits for a timer.
    options.retransmit = Duration::from_secs(3600);
    let client = Client::connect(options).await.unwrap();
    let mut tasks = vec![];
    for stream in 0..50u32 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            for at in 0..40 {
                let op = format!("{stream}:{at}");
                assert_eq!(client.call(stream, &op).await.unwrap(), op.as_bytes());
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = client.stats();
    assert_eq!(stats.counters.completed, 2000);
    assert!(stats.counters.frames < 2000, "operations travel together");
    assert_eq!((stats.reachable, stats.links), (4, vec![2; 4]));
    assert_eq!(stats.wrong_replies, [0; 4]);
    client.close().await;
}

#[tokio::test]
async fn order_is_that_of_the_calls_not_of_the_polls() {
    let group = FakeGroup::start(4, 1, 1).await;
    let client = Client::connect(group.options()).await.unwrap();
    let calls: Vec<_> = (0..100u32).map(|at| client.call(3, at.to_string())).collect();
    for (at, call) in calls.into_iter().enumerate().rev() {
        assert_eq!(call.await.unwrap(), at.to_string().as_bytes());
    }
    let wanted: Vec<Vec<u8>> = (0..100).map(|at: u32| at.to_string().into_bytes()).collect();
    assert_eq!(group.executed(), wanted);
}

#[tokio::test]
async fn completions_come_in_batches_and_in_order() {
    let group = FakeGroup::start(4, 1, 1).await;
    let client = Client::connect(group.options()).await.unwrap();
    let (submitter, mut completions) = client.pipe();
    for tag in 0..5000u64 {
        submitter.submit(0, &tag.to_le_bytes(), tag).unwrap();
    }
    let (mut next, mut batches) = (0, 0);
    while next < 5000 {
        batches += 1;
        for completion in completions.recv().await.unwrap() {
            assert_eq!(completion.tag, next);
            assert_eq!(*completion.result.unwrap(), next.to_le_bytes());
            next += 1;
        }
    }
    assert!(batches < 5000);
    let mut batch = Batch::new();
    for round in 0..3u64 {
        (0..100).for_each(|tag| batch.push(0, b"x", 100 * round + tag).unwrap());
        submitter.submit_batch(&mut batch).unwrap();
        assert!(batch.is_empty());
    }
    let mut tags = vec![];
    while tags.len() < 300 {
        tags.extend(completions.recv().await.unwrap().into_iter().map(|c| c.tag));
    }
    assert_eq!(tags, (0..300).collect::<Vec<_>>());
    drop(submitter);
    assert!(completions.recv().await.is_none(), "the sink goes with the submitter");
}

#[tokio::test]
async fn f_replicas_may_be_down_and_come_back() {
    let mut group = FakeGroup::start(4, 1, 2).await;
    group.stop(3).await;
    let client = Client::connect(group.options()).await.unwrap();
    assert_eq!(client.call(0, "a").await.unwrap(), b"a");
    assert_eq!(client.status(ReplicaId(3)).await, Err(StatusError::Unreachable(ReplicaId(3))));
    group.restart(3).await;
    while client.stats().reachable < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    group.stop(0).await;
    for at in 0..20u32 {
        assert_eq!(client.call(at, at.to_string()).await.unwrap(), at.to_string().as_bytes());
    }
    let status = client.status(ReplicaId(3)).await.unwrap();
    assert_eq!(status, "replica 3 pillar 0");
    assert_eq!(client.status(ReplicaId(4)).await, Err(StatusError::Unknown(ReplicaId(4))));
}

/// Replicas answer once for all questions that they find together.
#[tokio::test]
async fn an_answer_about_the_status_is_for_all_who_ask() {
    let group = FakeGroup::start(4, 1, 1).await;
    let client = Client::connect(group.options()).await.unwrap();
    let one = ReplicaId(1);
    let (first, second) = tokio::join!(client.status(one), client.status(one));
    let third = client.status(one).await;
    for answer in [first, second, third] {
        assert_eq!(answer.as_deref(), Ok("replica 1 pillar 0"));
    }
}

#[tokio::test]
async fn links_that_break_under_load_lose_nothing() {
    let mut group = FakeGroup::start(4, 1, 1).await;
    let mut options = group.options();
    options.retransmit = Duration::from_millis(50);
    options.unbatched = true;
    let client = Client::connect(options).await.unwrap();
    for round in 0..6usize {
        let calls: Vec<_> = (0..200u32).map(|at| client.call(at, at.to_string())).collect();
        tokio::task::yield_now().await;
        group.stop(round % 4).await;
        group.restart(round % 4).await;
        for (at, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), at.to_string().as_bytes());
        }
    }
    assert_eq!(group.executed().len(), 1200, "each once");
}

#[tokio::test]
async fn too_few_replicas_are_named_as_the_cause() {
    let mut group = FakeGroup::start(4, 1, 1).await;
    let mut options = group.options();
    options.request_timeout = Duration::from_millis(300);
    let client = Client::connect(options.clone()).await.unwrap();
    for replica in 0..3 {
        group.stop(replica).await;
    }
    let error = client.call(0, "a").await.unwrap_err();
    assert_eq!(error, CallError::Unavailable { reachable: 1, needed: 3 });
    options.connect_timeout = Duration::from_secs(2);
    let error = Client::connect(options).await.unwrap_err();
    let text = error.to_string();
    let ConnectError::Unavailable { reachable: ..=1, needed: 3, last, .. } = error else {
        panic!("{text}");
    };
    assert!(last.contains("replica") && text.contains("start the replicas"), "{text}");
}

#[tokio::test]
async fn a_lost_session_is_told_and_replaced() {
    let group = FakeGroup::start(4, 1, 2).await;
    let client = Client::connect(group.options()).await.unwrap();
    let session = client.stats().session;
    group.evict();
    assert_eq!(client.call(0, "a").await, Err(CallError::SessionLost));
    assert_eq!(client.call(0, "b").await.unwrap(), b"b");
    assert!(client.stats().session > session);
    assert_eq!(group.executed(), [b"b"]);
}

#[tokio::test]
async fn bounds_are_kept_and_told() {
    let group = FakeGroup::start(4, 1, 1).await;
    let mut options = group.options();
    options.queued_ops_max = 10;
    let client = Client::connect(options.clone()).await.unwrap();
    let calls: Vec<_> = (0..10).map(|_| client.call(0, "a")).collect();
    let error = client.call(0, "b").await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { ops: 10, .. }) && error.is_unsent());
    let (submitter, _completions) = client.pipe();
    let mut batch = Batch::new();
    batch.push(0, b"c", 1).unwrap();
    assert!(submitter.submit_batch(&mut batch).unwrap_err().is_unsent());
    assert_eq!(batch.len(), 1, "a refused batch is as before");
    let huge = vec![0; base::limits::OP_BYTES_MAX + 1];
    let error = client.call(0, &huge).await.unwrap_err();
    assert_eq!(error, CallError::TooLarge { bytes: huge.len() });
    for call in calls {
        assert_eq!(call.await.unwrap(), b"a");
    }
    options.frames_in_flight = Some(0);
    assert!(matches!(Client::connect(options).await, Err(ConnectError::Option(_))));
    let mut options = group.options();
    options.secret = group.local.clients[1].clone();
    assert!(matches!(Client::connect(options).await, Err(ConnectError::Auth(_))));
}

#[tokio::test]
async fn large_operations_get_through() {
    let group = FakeGroup::start(4, 1, 1).await;
    let client = Client::connect(group.options()).await.unwrap();
    let ops: Vec<Vec<u8>> = (0..6).map(|at| vec![at; 3 << 20]).collect();
    let calls: Vec<_> = ops.iter().map(|op| client.call(0, op)).collect();
    for (op, call) in ops.iter().zip(calls) {
        assert!(call.await.unwrap() == *op);
    }
}

#[tokio::test]
async fn closing_ends_everything_for_all_handles() {
    let group = FakeGroup::start(4, 1, 1).await;
    let client = Client::connect(group.options()).await.unwrap();
    let other = client.clone();
    let (submitter, mut completions) = client.pipe();
    assert_eq!(client.call(0, "a").await.unwrap(), b"a");
    client.close().await;
    assert_eq!(other.call(0, "b").await, Err(CallError::Closed));
    assert_eq!(submitter.submit(0, b"c", 1), Err(CallError::Closed));
    assert!(completions.recv().await.is_none());
    assert_eq!(other.status(ReplicaId(0)).await, Err(StatusError::Closed));
}

#[test]
fn the_blocking_client_needs_no_runtime() {
    let (started, wait) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let group = FakeGroup::start(4, 1, 1).await;
            started.send((group.options(), group.local.clients[1].clone())).unwrap();
            let _ = stopped.await;
        });
    });
    let (options, foreign) = wait.recv().unwrap();
    let client = blocking::Client::connect(options.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let client = &client;
            scope.spawn(move || {
                for at in 0..50 {
                    let op = format!("{thread}:{at}");
                    assert_eq!(client.call(&op).unwrap(), op.as_bytes());
                }
            });
        }
    });
    let calls: Vec<_> = (0..10u32).map(|at| client.begin(at, at.to_string())).collect();
    for (at, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().unwrap(), at.to_string().as_bytes());
    }
    assert_eq!(client.status(ReplicaId(1)).unwrap(), "replica 1 pillar 0");
    drop(client);
    let mut options = options;
    options.secret = foreign;
    assert!(blocking::Client::connect(options).is_err());
    drop(stop);
    server.join().unwrap();
}

//! The closed loop: every client keeps a number of operations under way.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use client::{CallError, Client, Completion, Submitter};

use super::load::{Numbered, Shared};
use super::ops::Ops;
use super::tally::Tally;

/// Runs the clients of one thread to the end.
///
/// # Errors
/// When a client's task fails.
pub async fn run(shared: &Shared, clients: Vec<Numbered>) -> Result<Tally> {
    let mut tasks = Vec::new();
    for (number, client) in clients {
        let one = Loop::new(shared.clone(), number);
        tasks.push(tokio::spawn(async move {
            let tally = one.run(&client).await;
            client.close().await;
            tally
        }));
    }
    let mut all = Tally::new();
    for task in tasks {
        all.merge(task.await.context("a client's task ended")?);
    }
    Ok(all)
}

/// One client's part.
struct Loop {
    shared: Shared,
    ops: Ops,
    tally: Tally,
}

impl Loop {
    fn new(shared: Shared, number: usize) -> Loop {
        let ops = shared.plan.ops.clone().beginning_at(number);
        Loop { shared, ops, tally: Tally::new() }
    }

    async fn run(mut self, client: &Client) -> Tally {
        if let Some(open) = self.ops.opening() {
            let opened = client.call(0, open).await;
            if !opened.is_ok_and(|answer| self.ops.attach(&answer)) {
                self.tally.error("the group opens no session");
                return self.tally;
            }
        }
        let (submitter, mut completions) = client.pipe();
        let mut started = vec![0; self.shared.plan.outstanding as usize];
        let mut under_way = 0_u64;
        for slot in 0..self.shared.plan.outstanding {
            under_way += u64::from(self.submit(&submitter, slot).is_ok());
        }
        while under_way > 0 {
            let Some(batch) = completions.recv().await else {
                self.tally.error("the client has ended");
                break;
            };
            let now = Instant::now();
            self.record(&batch, &started, now);
            let again = now < self.shared.window.until;
            let at = self.shared.window.since_start(now);
            for completion in &batch {
                let slot = u32::try_from(completion.tag).expect("tags are slots");
                started[slot as usize] = at;
                let closed = matches!(completion.result, Err(CallError::Closed));
                if !again || closed || self.submit(&submitter, slot).is_err() {
                    under_way -= 1;
                }
            }
        }
        self.tally
    }

    fn submit(&mut self, submitter: &Submitter, slot: u32) -> Result<(), ()> {
        let stream = slot % self.shared.plan.streams;
        let taken = match self.ops.next() {
            (op, true) => submitter.submit_read(stream, op, u64::from(slot)),
            (op, false) => submitter.submit(stream, op, u64::from(slot)),
        };
        taken.map_err(|error| {
            self.tally.error(&error.to_string());
        })
    }

    /// Counts a batch. Operations that started together are counted together.
    fn record(&mut self, batch: &[Completion], started: &[u64], now: Instant) {
        let window = self.shared.window;
        let measured = window.measures(now);
        let at = window.since_start(now);
        let (mut run, mut since, mut all) = (0, 0, 0);
        for completion in batch {
            let good = self.tally.judge(completion, &self.ops);
            if !good || !measured {
                continue;
            }
            let slot = usize::try_from(completion.tag).expect("tags are slots");
            if started[slot] != since {
                self.tally.took(run, at.saturating_sub(since));
                (run, since) = (0, started[slot]);
            }
            run += 1;
            all += 1;
        }
        self.tally.took(run, at.saturating_sub(since));
        if all > 0 {
            self.tally.ended(all, &window, now);
        }
        self.shared.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

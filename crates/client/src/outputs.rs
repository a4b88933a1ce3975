//! What leaves the driver towards the callers: results one by one, or in batches to sinks.
//!
//! Invariant: a sink is in `dirty` exactly once while its batch is not empty, between turns none.

use std::collections::BTreeMap;

use proto::client::Results;

use crate::completion::{Completion, OpResult, SinkId, SinkState};
use crate::error::CallError;
use crate::inbox::Token;

/// What leaves towards the callers.
#[derive(Default)]
pub(crate) struct Outputs {
    pub(crate) sinks: BTreeMap<SinkId, SinkState>,
    /// Sinks for which something has come in this turn.
    dirty: Vec<SinkId>,
    /// Empty; lends its memory.
    run: Vec<Completion>,
}

impl Outputs {
    pub(crate) fn complete(&mut self, tokens: Vec<Token>, results: &Results) {
        let content = results.content();
        // Neighbours mostly have the same sink: it is looked up once per run of them.
        let (mut run, mut of) = (std::mem::take(&mut self.run), SinkId(0));
        for (token, range) in tokens.into_iter().zip(results.ranges()) {
            match token {
                // Who asked may have gone away meanwhile.
                Token::Call(caller) => drop(caller.send(Ok(content[range].to_vec()))),
                Token::Sink { sink, tag } => {
                    if sink != of {
                        self.append(of, &mut run);
                        of = sink;
                    }
                    run.push(Completion { tag, result: Ok(OpResult::new(content, range)) });
                }
            }
        }
        self.append(of, &mut run);
        self.run = run;
    }

    pub(crate) fn fail(&mut self, tokens: Vec<Token>, error: CallError) {
        for token in tokens {
            match token {
                // Who asked may have gone away meanwhile.
                Token::Call(caller) => drop(caller.send(Err(error))),
                Token::Sink { sink, tag } => {
                    self.append(sink, &mut vec![Completion { tag, result: Err(error) }]);
                }
            }
        }
    }

    /// Adds what is in `run` to what has come for a sink; leaves `run` empty.
    fn append(&mut self, id: SinkId, run: &mut Vec<Completion>) {
        if run.is_empty() {
            return;
        }
        match self.sinks.get_mut(&id) {
            Some(state) => {
                if state.batch.is_empty() {
                    self.dirty.push(id);
                    std::mem::swap(&mut state.batch, run);
                } else {
                    state.batch.append(run);
                }
            }
            // A sink that is gone wants nothing.
            None => run.clear(),
        }
    }

    pub(crate) fn hand_out(&mut self) {
        for id in self.dirty.drain(..) {
            if let Some(state) = self.sinks.get_mut(&id) {
                state.sink.complete(&mut state.batch);
                state.batch.clear();
            }
        }
    }
}

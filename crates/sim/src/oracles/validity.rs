//! Validity (design §3.4: no replica can invent or alter a client's request): whatever is
//! delivered was sent by the client that it names, byte for byte.
//!
//! Looks at every frame that a client really sends, with the hand that sends it, and at every
//! frame in a delivered batch. That what executes is what was delivered is `exactly_once`'s to
//! see. Does not see *to whom* the client sent it: a client that sends a frame to one replica
//! only has authenticated it.

use std::collections::BTreeMap;

use base::{Batch, ClientId, Digest, Frame, Seq};

use super::Verdict;

/// Frames that clients have sent.
#[derive(Debug, Default)]
pub struct Validity {
    sent: BTreeMap<Digest, ClientId>,
}

impl Validity {
    /// `client` itself sends a frame.
    ///
    /// # Errors
    /// When the frame names another client.
    pub fn sends(&mut self, client: ClientId, frame: &Frame) -> Verdict {
        if frame.id().client != client {
            return Err(format!("{client:?} sends {:?} in another's name", frame.id()));
        }
        self.sent.insert(frame.digest(), client);
        Ok(())
    }

    /// A correct replica delivers `batch` at `seq`.
    ///
    /// # Errors
    /// When a frame in it was not sent by its client.
    pub fn delivers(&self, seq: Seq, batch: &Batch) -> Verdict {
        let Batch::Frames { frames, .. } = batch else { return Ok(()) };
        for frame in frames {
            let sender = self.sent.get(&frame.digest());
            if sender != Some(&frame.id().client) {
                return Err(format!("{:?} at {seq:?} was sent by {sender:?}", frame.id()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::{batch, frame};

    #[test]
    fn inventions_alterations_and_strangers_are_seen() {
        let (mine, altered) = (frame(4, 1, &[b"pay 1"]), frame(4, 1, &[b"pay 9"]));
        let mut validity = Validity::default();
        assert!(validity.sends(ClientId(5), &mine).is_err(), "in another's name");
        assert!(validity.delivers(Seq(1), &batch(std::slice::from_ref(&mine))).is_err());
        assert_eq!(validity.sends(ClientId(4), &mine), Ok(()));
        assert_eq!(validity.delivers(Seq(1), &batch(std::slice::from_ref(&mine))), Ok(()));
        assert!(validity.delivers(Seq(2), &batch(&[mine, altered])).is_err());
        assert_eq!(validity.delivers(Seq(3), &Batch::Null), Ok(()));
    }
}

//! A leader that does not hear one client: for the drill `starve-client`.
//!
//! What is not heard here is what the lane gets, so that its core is that of production and its
//! proposals agree with what it believes.

use base::{BatchEntry, ClientId, ReplicaId, View};
use proto::pbft::Input;
use proto::pbft::msg::Message;

use super::{Drill, DrillSwitch};

/// Whom a replica does not hear while it leads.
pub(crate) struct Deaf {
    client: ClientId,
    switch: DrillSwitch,
    me: ReplicaId,
    n: u16,
}

impl Deaf {
    /// What `drill` comes to for one lane; nothing unless it is about a client.
    pub(crate) fn new(
        drill: Option<Drill>,
        switch: DrillSwitch,
        (me, n): (ReplicaId, u16),
    ) -> Option<Deaf> {
        match drill {
            Some(Drill::StarveClient(client)) => Some(Deaf { client, switch, me, n }),
            _ => None,
        }
    }

    /// What is left of `input`.
    pub(crate) fn filter(&self, view: View, input: Input) -> Option<Input> {
        if !self.switch.is_on() || view.0 % u64::from(self.n) != u64::from(self.me.0) {
            return Some(input);
        }
        let about = |entry: &BatchEntry| entry.id.client == self.client;
        match input {
            Input::Request(frame) if frame.id().client == self.client => None,
            Input::Peer { from, incarnation, mut message } => {
                match &mut message {
                    Message::Vouch { entries, .. } => entries.retain(|entry| !about(entry)),
                    Message::Endorse { entries, .. } | Message::Owed { entries, .. } => {
                        entries.retain(|(one, _)| !about(one));
                    }
                    Message::Body { frame, .. } | Message::Forward(frame)
                        if frame.id().client == self.client =>
                    {
                        return None;
                    }
                    _ => {}
                }
                let empty = match &message {
                    Message::Vouch { entries, .. } => entries.is_empty(),
                    Message::Endorse { entries, .. } | Message::Owed { entries, .. } => {
                        entries.is_empty()
                    }
                    _ => false,
                };
                (!empty).then_some(Input::Peer { from, incarnation, message })
            }
            input => Some(input),
        }
    }
}

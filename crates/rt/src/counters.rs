//! Plain counters of one lane: no atomics, copied out on request.

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)*
        }

        impl $name {
            /// Adds `other`, field by field.
            pub fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    /// What happened on the connections. Counts since the start.
    LinkCounters {
        /// Connections accepted.
        accepted,
        /// Times the system could not give us a connection that waits.
        accept_errors,
        /// Connections to peers that we tried to make.
        dialled,
        /// Links that came up.
        established,
        /// Handshakes that failed, or took too long.
        handshakes_failed,
        /// Connections closed because of bytes that no correct peer sends.
        malformed,
        /// Connections closed because of a frame that its client has not authenticated to this
        /// replica.
        forged,
        /// Connections refused or closed because of what the other end did before.
        banned,
        /// Connections closed because a client spoke for another one.
        impostors,
        /// Connections of clients closed because too much waited for their principal to read it.
        slow_clients,
        /// Connections refused because there were too many, or dropped to make room.
        crowded_out,
        /// Links refused because they belong to an older life of the peer.
        stale_lives,
        /// Messages to peers dropped because their link was down or too slow.
        peer_messages_dropped,
        /// Replies that no connection was waiting for.
        replies_unclaimed,
        /// Replies that others sent in this replica's place.
        replies_relieved,
        /// Replies that were digests.
        replies_digest,
    }
}

counters! {
    /// How much went through. Counts since the start.
    TrafficCounters {
        /// Turns of the event loop in which the lane had something to do.
        turns,
        /// Bytes read.
        bytes_in,
        /// Bytes written.
        bytes_out,
        /// Packets opened.
        packets_in,
        /// Messages of peers handed to the lane.
        peer_messages,
        /// Request frames handed to the lane.
        frames,
        /// Replies handed to clients' links.
        replies,
        /// Clients told that something waits for them.
        nudges,
        /// Frames refused because their client exceeds its quota.
        quota,
        /// Frames dropped because their client has not signed them, where that is asked for.
        unsigned,
        /// Frames dropped because their client repeats itself too often.
        repeats,
        /// Inputs the lane refused as stale.
        stale,
        /// Inputs the lane refused as misbehaviour.
        misbehaviour,
        /// Requests for a cached reply that were dropped because the stage was busy.
        resends_dropped,
        /// Frames of reads that were dropped because the stage was busy.
        reads_dropped,
    }
}

//! Every kind of message that a replica sends, by the name that the protocol's documents use.

use base::transfer::{StateAnswer, StateMessage, StateRequest};
use proto::group::evidence::Proof;
use proto::group::msg::GroupMessage;
use proto::pbft::msg::Message;

macro_rules! kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// A kind of message.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// The name by which people know it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    PrePrepare = "PRE-PREPARE",
    Prepare = "PREPARE",
    Commit = "COMMIT",
    Nulls = "NULLS",
    Vouch = "VOUCH",
    Fetch = "FETCH",
    Body = "BODY",
    Forward = "FORWARD",
    Checkpoint = "CHECKPOINT",
    Status = "STATUS",
    Decided = "DECIDED",
    FetchProposal = "FETCH-PROPOSAL",
    ProposalIs = "PROPOSAL-IS",
    Endorse = "ENDORSE",
    Owed = "OWED",
    Wish = "WISH",
    ViewChange = "VIEW-CHANGE",
    NewView = "NEW-VIEW",
    Recover = "RECOVER",
    RecoverAck = "RECOVER-ACK",
    Seek = "SEEK",
    WantCheckpoint = "WANT-CHECKPOINT",
    HaveCheckpoint = "HAVE-CHECKPOINT",
    HaveState = "HAVE-STATE",
    WrongCheckpoint = "EVIDENCE wrong-checkpoint",
    TwoViewChanges = "EVIDENCE two-view-changes",
    BadViewChange = "EVIDENCE bad-view-change",
    BadNewView = "EVIDENCE bad-new-view",
    AskManifest = "ASK manifest",
    AskNodes = "ASK nodes",
    AskObjects = "ASK objects",
    AskPiece = "ASK piece",
    TellManifest = "TELL manifest",
    TellNodes = "TELL nodes",
    TellObject = "TELL object",
    TellGone = "TELL gone",
    Reply = "REPLY",
}

impl Kind {
    /// The kind of a message between replicas.
    pub(crate) fn of(message: &Message) -> Kind {
        match message {
            Message::PrePrepare { .. } => Kind::PrePrepare,
            Message::Prepare(_) => Kind::Prepare,
            Message::Commit(_) => Kind::Commit,
            Message::Nulls(_) => Kind::Nulls,
            Message::Vouch { .. } => Kind::Vouch,
            Message::Fetch { .. } => Kind::Fetch,
            Message::Body { .. } => Kind::Body,
            Message::Forward(_) => Kind::Forward,
            Message::Checkpoint(_) => Kind::Checkpoint,
            Message::Status { .. } => Kind::Status,
            Message::Decided { .. } => Kind::Decided,
            Message::FetchProposal { .. } => Kind::FetchProposal,
            Message::ProposalIs { .. } => Kind::ProposalIs,
            Message::Endorse { .. } => Kind::Endorse,
            Message::Owed { .. } => Kind::Owed,
            Message::Group(message) => Kind::of_group(message),
            Message::State(message) => Kind::of_state(message),
        }
    }

    fn of_group(message: &GroupMessage) -> Kind {
        match message {
            GroupMessage::Wish { .. } => Kind::Wish,
            GroupMessage::ViewChange(_) => Kind::ViewChange,
            GroupMessage::NewView(_) => Kind::NewView,
            GroupMessage::Recover(_) => Kind::Recover,
            GroupMessage::RecoverAck { .. } => Kind::RecoverAck,
            GroupMessage::Seek(_) => Kind::Seek,
            GroupMessage::WantCheckpoint { .. } => Kind::WantCheckpoint,
            GroupMessage::HaveCheckpoint(_) => Kind::HaveCheckpoint,
            GroupMessage::HaveState { .. } => Kind::HaveState,
            GroupMessage::Evidence(proof) => match **proof {
                Proof::WrongCheckpoint { .. } => Kind::WrongCheckpoint,
                Proof::TwoViewChanges(..) => Kind::TwoViewChanges,
                Proof::BadViewChange(_) => Kind::BadViewChange,
                Proof::BadNewView(_) => Kind::BadNewView,
            },
        }
    }

    fn of_state(message: &StateMessage) -> Kind {
        match message {
            StateMessage::Ask { checkpoint: _, request } => match request {
                StateRequest::Manifest => Kind::AskManifest,
                StateRequest::Nodes { .. } => Kind::AskNodes,
                StateRequest::Objects { .. } => Kind::AskObjects,
                StateRequest::Piece { .. } => Kind::AskPiece,
            },
            StateMessage::Tell { checkpoint: _, answer } => match answer {
                StateAnswer::Manifest(_) => Kind::TellManifest,
                StateAnswer::Nodes { .. } => Kind::TellNodes,
                StateAnswer::Object { .. } => Kind::TellObject,
                StateAnswer::Gone => Kind::TellGone,
            },
        }
    }
}

//! Deliberate bugs: what the proof machinery must find, or it proves nothing.
//!
//! Each is one line in production code, `base::mutant!(Name)`, which is literally `false` unless
//! the feature `mutants` is on; then it says whether this process was told to have that bug. All
//! replicas of a simulated world have it. The feature is for the simulator alone: a normal build
//! has neither the table nor the choice.

/// Whether this process was told to have the bug of that name, or one of those. Without the
/// feature `mutants`, which nothing that is shipped turns on: `false`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($($name:ident)|+) => {
        false
    };
}

/// Whether this process was told to have the bug of that name, or one of those.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($($name:ident)|+) => {
        ($($crate::mutants::Mutant::$name.is_chosen())||+)
    };
}

#[cfg(feature = "mutants")]
pub use table::{ALL, About, Mutant, choose};

#[cfg(feature = "mutants")]
mod table {
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// What people know about a mutant.
    #[derive(Clone, Copy, Debug)]
    pub struct About {
        /// Which.
        pub mutant: Mutant,
        /// Its name.
        pub name: &'static str,
        /// The rule that it breaks: a trap of the design, or a step of a protocol document.
        pub rule: &'static str,
        /// What is done wrong.
        pub bug: &'static str,
    }

    macro_rules! mutants {
        ($($name:ident: $rule:literal, $bug:literal;)*) => {
            /// A deliberate bug.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum Mutant {
                $(#[doc = $bug] $name,)*
            }

            /// All of them.
            pub static ALL: &[About] = &[
                $(About {
                    mutant: Mutant::$name,
                    name: stringify!($name),
                    rule: $rule,
                    bug: $bug,
                },)*
            ];
        };
    }

    /// The chosen one and one, or 0.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    impl Mutant {
        /// Whether this process has this bug.
        #[inline]
        #[must_use]
        pub fn is_chosen(self) -> bool {
            CHOSEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }

    /// This process has this bug from now on, and no other.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::Relaxed);
    }

    mutants! {
        PrepareQuorumShort: "L7", "prepared with one PREPARE too few";
        CommitQuorumShort: "L8", "committed with one COMMIT too few";
        CheckpointQuorumShort: "L10", "a checkpoint is stable with one signature too few";
        CertificateOfFew: "V7", "certificates with f signatures are believed";
        CertificateUnverified: "V7", "the signatures of a certificate are not verified";
        CheckpointSignatureUnverified: "L10", "the signatures of CHECKPOINTs are not verified";
        ViewChangeQuorumShort: "V9", "a NEW-VIEW with one VIEW-CHANGE too few decides";
        NullQuorumShort: "trap 2", "null is chosen with one VIEW-CHANGE too few";
        A1QuorumShort: "trap 2", "A1 with one VIEW-CHANGE too few";
        A2QuorumShort: "trap 2", "A2 on the word of f replicas";
        A1Missing: "trap 2", "choices are made without A1";
        A2Missing: "trap 2", "choices are made without A2";
        FirstPreparedWins: "trap 1", "the first P entry is chosen, not the highest view's";
        StartsAtLowest: "trap 1", "a view starts at the lowest checkpoint of its VIEW-CHANGEs";
        ReplyQuorumShort: "trap 5", "a client accepts a reply that f replicas gave";
        RetryNotInFull: "trap 10", "a frame that is sent again is answered as the first time";
        DigestIsContent: "trap 10", "a client takes digests for votes for the content it has";
        DigestsOfFew: "trap 10", "a content that has the digests of f replicas is accepted";
        RepliesNotReplicasCount: "trap 13", "a client counts replies, not replicas";
        NothingToldAgain: "L12", "what a laggard was told once is never told again";
        OneDecidedIsBelieved: "trap 9", "a laggard believes one DECIDED";
        OneMentionIsBelieved: "L11", "one replica's word makes others believe in a number";
        OneStateIsBelieved: "F10", "f replicas' word for a state at rest is believed";
        OneWishIsJoined: "trap 14", "a replica joins the wishes of f others";
        WeakQuorumLeaves: "V4", "a replica leaves its view when f + 1 wish for it";
        OneVouchIsEnough: "L3", "the leader proposes what it alone vouches for";
        LeadersWordIsTrust: "L6", "a frame is trusted on its leader's word alone";
        OneEndorsementIsEnough: "L16", "one ENDORSE makes a frame the leader's debt";
        BodyUnauthenticated: "L6", "a fetched frame is trusted without a look at its authenticator";
        MessagesCount: "trap 13", "votes are counted by message, not by sender";
        SecondProposalReplaces: "trap 13", "a leader's second proposal replaces its first";
        AnyDigestCounts: "trap 13", "votes are counted whatever digest they are for";
        LeaderPrepares: "L7", "a PREPARE of the leader counts";
        OldViewsVotesCount: "trap 14", "votes of views that were left count";
        WindowUnchecked: "L6", "numbers far above the window are accepted";
        AnybodyProposes: "L6", "a PRE-PREPARE of any replica is accepted";
        PlanDoesNotBind: "V11", "the leader may propose what the NEW-VIEW has not chosen";
        ProposalUnverified: "V12", "a proposal that was asked for is not held against its digest";
        ClockUnchecked: "decision 7", "any proposed time is accepted";
        DigestWithoutTime: "decision 7", "a batch's digest does not cover its time";
        TimeGoesBack: "decision 7", "agreed time is whatever was proposed";
        TimeNotFetched: "decision 7", "agreed time is not carried over with a fetched checkpoint";
        PreparedUnrecorded: "trap 12", "P is not recorded before COMMIT";
        VotesBeforeDurable: "trap 12", "votes leave before their records are durable";
        LeavesBeforeDurable: "trap 12", "VIEW-CHANGEs leave before their records are durable";
        RestartForgetsVotes: "trap 12", "a restart does not take up the votes of its view";
        RestartForgetsLeaving: "trap 14", "a restart forgets that its view was left";
        VotesAfterLeaving: "trap 3", "pillars go on voting after their slices are taken";
        OneSliceIsEnough: "trap 3", "a VIEW-CHANGE with the slice of one pillar";
        LowestMarkOfPillars: "trap 3", "a VIEW-CHANGE with the lowest of the pillars' low marks";
        MarksPerPillar: "trap 11", "pillars do not hear of each other's stable checkpoints";
        QForgotten: "trap 2", "Q is forgotten when a view is left";
        PForgotten: "trap 2", "P is forgotten when a view is left";
        QKeepsFirstView: "trap 2", "Q keeps the first view of a digest, not the latest";
        QDropsTheLatest: "trap 2", "a full Q drops the entry of the highest view";
        PKeepsTheFirst: "trap 2", "P keeps the first view, not the highest";
        ChangesInNewViewUnverified: "V9", "the VIEW-CHANGEs in a NEW-VIEW are not verified";
        SendersInNewViewRepeat: "trap 1", "one sender may stand in a NEW-VIEW several times";
        NewViewMixesViews: "trap 1", "a NEW-VIEW may hold VIEW-CHANGEs for other views";
        NewViewUnsigned: "V9", "a NEW-VIEW is believed without its leader's signature";
        DisplacedForgotten: "trap 4", "frames of displaced proposals never wait for an order again";
        IdlePillarLeavesGaps: "trap 4", "an idle pillar fills no gaps";
        NullExecutes: "trap 4", "the null batch is executed as a request";
        TimerNotReset: "trap 14", "the progress timer is not reset by progress";
        TimeoutStays: "trap 14", "the timeout does not grow with failed view changes";
        LaggardsFindNoView: "trap 11", "who lags is not served the NEW-VIEW, also after a fetch";
        StallUnnoticed: "trap 14", "nobody watches for a leader that stands still";
        StarvationUnnoticed: "L16", "nobody watches for a leader that starves a client";
        SlownessUnnoticed: "L22", "nobody watches for a leader that is slow";
        EquivocationUnnoticed: "L23", "nobody minds a leader that equivocates";
        EvidenceDropped: "decision 11", "what proves a fault is not kept";
        EvidenceUnverified: "decision 11", "a proof is believed without verification";
        ForgetfulVotes: "trap 12", "a replica that has forgotten its votes goes on voting";
        OldLivesCount: "decision 10", "VIEW-CHANGEs of lives that forgot are accepted";
        EstimateShort: "R6", "the estimate of what was forgotten leaves out the window";
        RecoveryQuorumShort: "R6", "recovery with one acknowledgement too few";
        ForgetfulAcknowledge: "R5", "acknowledgements of others that recover count";
        AcksOfLaterViews: "R5", "acknowledgements from later views count";
        RecoverUnrecorded: "R3", "a RECOVER is acknowledged without a record of it";
        MarkMovesUnexecuted: "trap 11", "the low mark moves to what is not executed here";
        DivergenceUnnoticed: "trap 11", "a replica ignores that its state is not the certified one";
        SessionsNotInDigest: "trap 5", "the checkpoint's digest leaves out the client table";
        SessionsNotFetched: "trap 5", "state transfer leaves out the client table";
        SessionDigestStale: "trap 5", "a session's digest is not computed anew when it is used";
        EvictionDiffers: "trap 5", "which session is evicted depends on the process";
        DuplicatesExecute: "trap 5", "a frame that was executed is executed again";
        ConflictsExecute: "trap 5", "a second frame with the id of an executed one is executed";
        ConflictGetsTheReply: "trap 5", "a second frame with an id gets the reply to the first";
        AcknowledgedExecute: "trap 5", "a frame that was acknowledged is executed again";
        StreamOutOfOrder: "decision 5", "frames of an ordered stream execute in any order";
        StreamWindowUnchecked: "trap 5", "a stream's window has no end";
        ManifestUnverified: "trap 9", "what a source says a checkpoint consists of is believed";
        StateUnverified: "trap 9", "nothing that was fetched is verified";
        WrongBucketAccepted: "L26", "a leader may propose frames that are dealt to another";
        BucketsStay: "L26", "frames are dealt to the same leader in every interval";
        OneBlameExcludes: "V17", "one VIEW-CHANGE's word excludes a leader";
        AnyNumberExcluded: "V17", "more than f leaders may be excluded";
        ExclusionsForgotten: "V17", "an exclusion ends with its view";
        HeldCommitsOutliveView: "trap 3", "COMMITs that wait for company leave after the slice";
        NullsCountForAnything: "L5b", "a vote for a run of nulls counts for whatever is proposed";
        RunsSayTooMuch: "L5b", "a run of nulls names a number more than was said";
        NullsDriveSiblings: "L5b", "siblings fill their numbers because an idle pillar ran ahead";
        NullsWaitForOthers: "L5b", "execution complains of gaps that nothing but nulls is behind";
        LeaderProposesUnchecked: "L3", "a leader proposes signed frames without a look at them";
        FrozenObjectsChange: "trap 11", "an object that is written after a checkpoint counts in it with its new value";
        PinnedObjectsChange: "trap 11", "a checkpoint that is kept readable changes with the state";
        EdgeDropped: "trap 6", "an operation that writes what others read does not wait for them";
        CutsIgnored: "trap 11", "workers run ahead of a checkpoint that is not taken";
        FetchAmidJobs: "trap 11", "a state is fetched while workers write to it";
        GivenUpJobsCount: "trap 11", "what workers did to a state that was given up counts";
        WakesAmidJobs: "trap 6", "the service is woken while operations before that are in flight";
        PromisesNotHeld: "trap 12", "effects do not wait for the records of their core";
        CertifiesBeforeDurable: "L10", "CHECKPOINTs leave before what they rest on is durable";
        CertifiesUnsaved: "F12", "a state that was fetched is signed before it is on disk";
        OnePillarUnwritten: "decision 9", "a group commit leaves out the records of one pillar";
        LastRecordStays: "trap 2", "a start takes up the last record of each number only";
        CommitsNotSynced: "trap 12", "commits of the log are written and not synced";
        BarriersNotSynced: "L10", "a barrier without records of its own does not sync the log";
        NamesNotSynced: "trap 12", "the directory is not synced after a new segment of the log";
        TrimsTooMuch: "trap 12", "the log is cut beyond the checkpoint on disk";
        LostCommitIsTorn: "trap 12", "a durable commit that is blank is taken for a torn one";
        BlockUnchecked: "trap 12", "the checksums of the log's blocks are not looked at";
        CheckpointNamedUnsynced: "decision 9", "a checkpoint is named before it is on the disk";
        DoubtfulVotes: "R1", "a replica with a log in doubt counts as whole";
        RotIsTorn: "trap 12", "a damaged block at the end of the log is taken for a torn one";
        UnfinishedIsWhole: "R1", "a life after one that had not recovered counts as whole";
        AsyncOutlivesBoot: "R1", "an async replica counts as whole after its machine has restarted";
        TentativeUnsaid: "trap 7", "a tentative reply does not say that it is one";
        TentativeStays: "trap 7", "a batch stays executed when another one is committed";
        RollBackForgetsSessions: "trap 7", "a roll-back leaves the session table as it is";
        RollBackForgetsObjects: "trap 7", "a roll-back leaves the service's objects as they are";
        TentativeOnTentative: "trap 7", "a batch executes on one that is not committed";
        TentativeInCheckpoint: "trap 7", "a checkpoint is taken before its batch is committed";
        TentativeBeforeDurable: "trap 7", "a batch executes before it is on record as prepared";
        TentativeOfFew: "decision 14", "f + 1 tentative replies are accepted";
        TentativeViewsMix: "decision 14", "tentative replies of different views count together";
        RollBackLosesReplies: "trap 7", "a roll-back does not bring acknowledged replies back";
        ReadsUnsettled: "trap 8", "a read sees a batch that is not executed whole, or not committed";
        ReadQuorumShort: "trap 8", "a read's result is accepted from f + 1 replicas";
        WritesOfFewWithReads: "trap 8", "replies to writes are accepted from f + 1 replicas though reads are not ordered";
        ReadsSinceUnseen: "trap 8", "equal results of a read count whenever they were written";
        ReadsOvertake: "trap 8", "a read without an order overtakes what its stream has under way";
        ReadsForgetful: "trap 8", "a replica that has begun anew answers reads before it has caught up";
    }
}

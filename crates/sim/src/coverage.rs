//! What a run met: every kind of fault, and every rare turn that the protocol can take.
//!
//! A simulation proves nothing about what it never did. Counters say what it did; those that are
//! zero over many seeds show where it is blind.

macro_rules! sights {
    ($($name:ident = $text:literal,)*) => {
        /// Something that a run may meet.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[allow(missing_docs, reason = "their texts say what they are")]
        pub enum Sight { $($name,)* }

        /// All of them.
        pub const SIGHTS: &[(Sight, &str)] = &[$((Sight::$name, $text),)*];
    };
}

sights! {
    Lost = "a message is lost",
    Duplicated = "a message comes twice",
    Replayed = "an old message comes again",
    Halves = "a partition into two sides",
    Alone = "a replica cut off from all others",
    OneWay = "a replica that hears nobody, or that nobody hears",
    NonTransitive = "a partition in which hearing is not transitive",
    Clogged = "a replica's links hold everything back",
    ClockJumps = "a wall clock jumps",
    ClockDrifts = "a wall clock is fast or slow",
    Core = "a core is mended while the rest stays as it is",
    StaysDead = "a replica stays dead beside the core",
    StaysPaused = "a replica stays paused beside the core",
    StaysCut = "a replica stays cut off beside the core",
    StaysFaulty = "a replica stays faulty beside the core",
    LinkCut = "a directed link carries nothing",
    LinkSlow = "a directed link is slow",
    Healed = "links are mended",
    Weather = "the whole network changes its behaviour",
    Crash = "a process ends",
    Undurable = "a process ends with records that are not durable",
    PowerFails = "a machine loses its power",
    Restart = "a process starts again",
    Forgetful = "a process starts and may have forgotten votes",
    DiskLost = "a disk is lost",
    Rot = "a bit flips on a disk",
    WriteLost = "a disk loses a write and says nothing",
    WriteCorrupted = "a disk writes something else",
    WriteMisdirected = "a disk writes to another place",
    ReadMisdirected = "a disk reads from another place",
    SectorTorn = "a sector is written in part when the power fails",
    SyncFails = "a sync fails",
    MachineStops = "a machine stops between two operations of its disk",
    StartFails = "a start ends before it has begun",
    DamagedCheckpoint = "a replica starts with a damaged checkpoint",
    UnseenLoss = "a disk has lost votes and nobody can know",
    Pause = "a process is paused",
    Continue = "a paused process goes on",
    Spoilt = "a service's memory is spoilt",
    Sluggish = "a part of a replica is late",
    TurnLater = "several inputs come before a turn",
    StageBusy = "the stage executes and hears nobody",
    RingFull = "a full ring drops what a client will ask again",
    Lie = "a faulty replica says something else than it would",
    LeavesView = "a replica leaves a view",
    InstallsView = "a replica installs a view",
    HighView = "a replica installs a view above 4",
    ChosenDigest = "a NEW-VIEW chooses a batch",
    ChosenNull = "a NEW-VIEW chooses a null batch",
    PlanEmpty = "a NEW-VIEW has nothing to choose",
    Recovered = "a forgetful replica votes again",
    TooManyForgetful = "more than f replicas may have forgotten",
    Fetching = "a replica begins to fetch a checkpoint",
    Fetched = "a replica has fetched a checkpoint",
    Proof = "a replica is proven faulty",
    Suspicion = "a replica is suspected",
    Stable = "a checkpoint becomes stable",
    Diverged = "a replica finds its own state wrong",
    RolledBack = "a tentative batch rolled back",
    Tentative = "a batch is executed before it is committed",
    Beside = "two workers execute at the same time",
    DigestsLater = "messages come in while a checkpoint's digests are made",
    JobsGivenUp = "a state is given up while workers execute on it",
    CrashAmidJobs = "a process ends while workers execute",
    CopyWaits = "a checkpoint on its way to the disk waits for workers",
    ReadAnswered = "a read is answered without an order",
    LeftBehind = "a replica is left behind by the logs",
    NullDelivered = "a null batch is delivered",
    FramesDelivered = "a batch of frames is delivered",
    FetchesBody = "a replica asks for a body",
    GivesBody = "a replica gives a body",
    Forwards = "a replica forwards a frame",
    FetchesProposal = "a replica asks for a proposal that a NEW-VIEW chose",
    GivesProposal = "a replica gives such a proposal",
    Decided = "a replica helps another with a decision",
    ViewChange = "a VIEW-CHANGE arrives",
    NewView = "a NEW-VIEW arrives",
    Recover = "a RECOVER arrives",
    RecoverAck = "an answer to a RECOVER arrives",
    WantsCheckpoint = "a replica wants to fetch a checkpoint",
    HasCheckpoint = "a replica offers a checkpoint",
    HasState = "a replica at rest offers its state",
    Evidence = "a proof is passed on",
    NullRun = "null batches of many numbers in one message",
    Endorse = "a replica says that frames wait which the leader does not order",
    Owed = "a replica says that the leader owes a frame",
    Seek = "a replica waits for a stable checkpoint",
    StateAsked = "a part of a checkpoint is asked for",
    StateTold = "a part of a checkpoint is told",
    CheckpointOnDisk = "a checkpoint reaches the disk",
    Attack = "a faulty client sends frames",
    AttackLater = "a faulty client sends frames in a view above 0",
    FaultUnderLoad = "a fault begins while a client waits",
}

/// How often a run met what.
#[derive(Clone, Debug)]
pub struct Coverage([u64; SIGHTS.len()]);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage([0; SIGHTS.len()])
    }
}

impl Coverage {
    /// Once more.
    pub fn saw(&mut self, sight: Sight) {
        self.0[sight as usize] += 1;
    }

    /// What another run met, too.
    pub fn add(&mut self, other: &Coverage) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// How often.
    #[must_use]
    pub fn count(&self, sight: Sight) -> u64 {
        self.0[sight as usize]
    }

    /// What was never met.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> + '_ {
        SIGHTS.iter().filter(|(sight, _)| self.count(*sight) == 0).map(|(_, text)| *text)
    }
}

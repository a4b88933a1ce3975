//! How a life begins: what the replica's directory holds, whether it may vote, and the state that
//! it begins with.
//!
//! The order matters. The directory is locked and read; the decision is made (`store`); it is
//! made durable; only then is anything said to others. What is read back is verified: records by
//! the log's checksums and by their own form, a checkpoint by its certificate and its digests.
//! Which state follows from the checkpoints that are there is `load`'s topic.
//!
//! Not here: the files (`store`), and what runs the life that begins (`rt`, `sim`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{FromStage, Incarnation, Keyring, Now, PillarId, Seq, StableCheckpoint, Stripe, View};
use exec::{Service, Stage, StageConfig};
use proto::Record;
use proto::group::link::{FromCoordinator, Plan};
use proto::group::record::GroupRecord;
use proto::group::rules::Rules;
use proto::group::{Beginning, Coordinator, CoordinatorConfig, Effect, Input};
use proto::pbft::LaneStart;
use store::{
    Dir, Durability, Identity, Log, LogOptions, Opened, Refusal, Storage, StoreError, Voice,
};

use crate::load::Loaded;
use crate::remains::Remains;

/// What a start has to know.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Whose directory it is.
    pub identity: Identity,
    /// How numbers are dealt out to pillars.
    pub stripe: Stripe,
    /// What the stage is made for.
    pub stage: StageConfig,
    /// What certificates are judged by.
    pub rules: Rules,
    /// What signatures are verified with.
    pub keys: &'a dyn Keyring,
    /// The mark of `init` says that this is the first start.
    pub fresh: bool,
    /// The operator asked for recovery.
    pub recover: bool,
    /// How promises will be kept.
    pub durability: Durability,
    /// How the log will be laid out.
    pub layout: LogOptions,
    /// The incarnation that the clock gives.
    pub clock: Incarnation,
}

impl Terms<'_> {
    /// Whether a state moves no low mark, for fewer than a quorum have signed it.
    pub(crate) fn is_weak(&self, state: &StableCheckpoint) -> bool {
        state.is_weak(self.rules.quorums.quorum())
    }
}

/// A directory from which no life can begin.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The replica must not start like this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the log holds is nothing that this version wrote.
    #[error("the log in {dir} cannot be read by this version: {what}")]
    Records {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: base::Malformed,
    },
}

/// Everything that a life begins with.
pub struct Boot {
    /// The life.
    pub incarnation: Incarnation,
    /// Whether it may vote.
    pub beginning: Beginning,
    /// Whether there was an earlier life.
    pub resumes: bool,
    /// The directory, where there is one.
    pub dir: Option<Dir>,
    /// Where promises are written, unless durability is `memory`.
    pub log: Option<Log>,
    /// The execution stage.
    pub stage: Stage,
    /// The checkpoint that the stage begins with, or a state that only a weak quorum has signed.
    pub stable: StableCheckpoint,
    /// What the coordinator is to be told first: the stage is not what it should be.
    pub damage: Option<FromStage>,
    /// What this replica promised, per pillar.
    pub records: Vec<Vec<Record>>,
    /// What the coordinator must not forget.
    pub group_records: Vec<GroupRecord>,
    /// The last checkpoint on disk: up to where the log may be cut once there is another one, and
    /// the bytes of its file.
    pub saved: Option<(Seq, u64)>,
}

impl std::fmt::Debug for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Boot");
        out.field("incarnation", &self.incarnation).field("beginning", &self.beginning);
        out.field("stable", &self.stable.seq).finish_non_exhaustive()
    }
}

impl Boot {
    /// Up to which number records of votes are of no use, or missing: the low mark of the state
    /// that it begins with, or what the log was cut to, where that state moves none.
    #[must_use]
    pub fn begins_above(&self) -> Seq {
        self.saved.map_or(self.stable.seq, |(seq, _)| seq.min(self.stable.seq))
    }

    /// Reads the directory at `path`, decides, and makes the decision durable. Without a
    /// checkpoint to load, `begin` makes the stage.
    ///
    /// # Errors
    /// When the replica must not start like this, its directory cannot be used, or `begin` says
    /// so.
    pub fn from_dir<E: From<BootError>>(
        terms: &Terms<'_>,
        (path, storage): (&Path, Arc<dyn Storage>),
        service: Box<dyn Service>,
        begin: impl FnOnce(Box<dyn Service>) -> Result<Stage, E>,
    ) -> Result<Boot, E> {
        let opened = Dir::open(path, terms.identity, storage).map_err(BootError::from)?;
        let Opened { mut dir, mut found } = opened;
        if !terms.recover {
            store::may_forget(&found, terms.durability).map_err(BootError::from)?;
        }
        let decided = store::beginning(&found, terms.fresh, terms.recover);
        let mut beginning = decided.map_err(BootError::from)?;
        let mut remains = Remains::new(terms.identity.group, terms.stripe, found.cut());
        for record in std::mem::take(&mut found.log.records) {
            remains
                .take(&record.bytes)
                .map_err(|what| BootError::Records { dir: path.to_path_buf(), what })?;
        }
        // What the log leads to counts only for who goes on with it.
        let lead = Some(&remains).filter(|_| beginning.voice == Voice::Whole);
        let loaded = Loaded::best(terms, &dir, (&found, lead), service, begin)?;
        if beginning.voice == Voice::Whole
            && let Some(doubt) = remains.doubt(&loaded.stable)
        {
            (beginning.voice, beginning.why) = (Voice::Forgetful, doubt);
        }
        let (id, incarnation) = (terms.identity.replica, found.incarnation(terms.clock));
        tracing::info!(%id, %incarnation, voice = ?beginning.voice, "{}", beginning.why);
        let log = dir.begin(&beginning, incarnation, terms.durability, terms.layout);
        let mut log = log.map_err(BootError::from)?;
        if let Some(log) = &mut log {
            log.begins_with(loaded.stable.seq);
        }
        let whole = beginning.voice == Voice::Whole;
        if !whole {
            remains.forget_votes();
        }
        Ok(Boot {
            incarnation,
            beginning: if whole { Beginning::Whole } else { Beginning::Forgetful },
            resumes: !terms.fresh,
            dir: Some(dir),
            log,
            stage: loaded.stage,
            stable: loaded.stable,
            damage: loaded.damage,
            records: remains.lanes,
            group_records: remains.group_records,
            saved: loaded.saved,
        })
    }

    /// The coordinator, and what it wants done before anything else happens: what the lanes must
    /// know from the start is among it.
    pub fn coordinator(
        &mut self,
        config: CoordinatorConfig,
        keys: Box<dyn Keyring>,
        now: Now,
    ) -> (Coordinator, Vec<Effect>) {
        let records = std::mem::take(&mut self.group_records);
        let (beginning, stable) = (self.beginning.clone(), self.stable.clone());
        let forgetful = beginning == Beginning::Forgetful;
        let mut core = Coordinator::new(config, keys, beginning, stable, records);
        // The log of one that may have forgotten was emptied: what is still known goes in again.
        let known = if forgetful { core.records() } else { Vec::new() };
        let mut first: Vec<Effect> = known.into_iter().map(Effect::Persist).collect();
        let begun = core.step(now, Input::Turn, &mut first);
        debug_assert!(begun.is_ok(), "a turn is never refused");
        if let Some(damage) = self.damage.take() {
            // It cannot help knowing; what follows from it is carried out with the rest.
            let _ = core.step(now, Input::Stage(damage), &mut first);
        }
        (core, first)
    }
}

/// What the lanes must be told before anything else happens to them.
#[derive(Clone, Debug)]
pub struct FirstWords {
    start: (View, bool, Option<Arc<Plan>>),
    /// In order.
    pub voting: Vec<FromCoordinator>,
}

impl FirstWords {
    /// Takes out of the coordinator's first effects what is for the lanes.
    pub fn split(effects: &mut Vec<Effect>) -> FirstWords {
        let mut words = FirstWords { start: (View(0), true, None), voting: Vec::new() };
        effects.retain(|effect| {
            let Effect::Lanes(message) = effect else { return true };
            match message {
                FromCoordinator::Install(plan) => {
                    words.start = (plan.view, true, Some(Arc::clone(plan)));
                }
                FromCoordinator::Stop { view } => {
                    words.start = (*view, false, words.start.2.take());
                }
                other => words.voting.push(other.clone()),
            }
            false
        });
        words
    }

    /// The NEW-VIEW of the view that the lanes begin in, or below, if any.
    #[must_use]
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.start.2.as_ref()
    }

    /// How a lane begins. Takes its records out of `boot`.
    ///
    /// # Panics
    /// When there is no such pillar.
    #[must_use]
    pub fn lane_start(&self, boot: &mut Boot, pillar: PillarId) -> LaneStart {
        let (view, active, plan) = self.start.clone();
        let records = std::mem::take(&mut boot.records[usize::from(pillar.0)]);
        let (stable, cut, resumes) = (boot.stable.clone(), boot.begins_above(), boot.resumes);
        LaneStart { stable, cut, view, active, plan, records, resumes }
    }
}

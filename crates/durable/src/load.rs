//! The state that a life begins with: which of the checkpoints on disk, and what becomes of one
//! that is damaged.
//!
//! The newest one that is certified and whole is it. When its objects do not verify, the log may
//! lead to the same state from the one before, which is kept for that, or from the beginning as
//! long as the log was never cut; the damaged file goes then. Otherwise, as where the state was
//! fetched and the log begins above it, the stage stands still with what could be read until it
//! has fetched the rest from the others.
//!
//! Not here: whether the replica may vote (`boot`, `remains`), and the files (`store`).

use base::{Digest, FromStage, Seq, StableCheckpoint};
use exec::{Damaged, Service, Stage, StageBuilder};
use store::checkpoint::CheckpointHead;
use store::{Dir, Found, Item, StoreError};

use crate::boot::{BootError, Terms};
use crate::remains::Remains;

/// What the checkpoints on disk came to.
pub(crate) struct Loaded {
    pub(crate) stage: Stage,
    /// The checkpoint that the stage begins with, or a state that only a weak quorum has signed.
    pub(crate) stable: StableCheckpoint,
    /// The stage is not what it should be.
    pub(crate) damage: Option<FromStage>,
    /// The file: up to where the log may be cut once there is another one, and its bytes.
    pub(crate) saved: Option<(Seq, u64)>,
}

/// The objects of a service in the state that groups begin with.
struct Pristine(Vec<Vec<u8>>);

impl Loaded {
    /// The state that follows from what was found. The log is in `remains`, for who goes on with
    /// it; without a checkpoint `begin` makes the stage.
    ///
    /// # Errors
    /// When the storage fails, or `begin` says so.
    pub(crate) fn best<E: From<BootError>>(
        terms: &Terms<'_>,
        dir: &Dir,
        (found, remains): (&Found, Option<&Remains>),
        mut service: Box<dyn Service>,
        begin: impl FnOnce(Box<dyn Service>) -> Result<Stage, E>,
    ) -> Result<Loaded, E> {
        let mut heads = credible(terms, found);
        let weak = |head: &CheckpointHead| terms.is_weak(&head.certificate);
        while let Some(newest) = heads.first().copied().filter(|head| weak(head)) {
            // What a weak quorum has signed nobody else need have: damaged, it is of no use.
            let pristine = Pristine::of(&*service);
            match load(terms, dir, newest, service).map_err(BootError::from)? {
                Ok(loaded) => return Ok(Loaded { saved: loaded.cuts(found.cut()), ..loaded }),
                Err(damaged) => service = pristine.put_back(damaged.into_service()),
            }
            discard(dir, heads[..1].iter())?;
            heads.remove(0);
        }
        let Some((newest, older)) = heads.split_first() else {
            return Ok(Loaded::nothing(begin(service)?));
        };
        let to = newest.certificate.seq;
        let leads_on = |from| remains.is_some_and(|remains| remains.leads(from, to));
        let older = older.iter().filter(|head| leads_on(head.certificate.seq));
        let pristine = leads_on(Seq(0)).then(|| Pristine::of(&*service));
        let mut damaged = match load(terms, dir, newest, service).map_err(BootError::from)? {
            Ok(loaded) => return Ok(loaded),
            Err(damaged) => damaged,
        };
        let mut last = newest;
        for head in older {
            last = head;
            let service = damaged.into_service();
            match load(terms, dir, head, service).map_err(BootError::from)? {
                Ok(loaded) => {
                    let newer = heads.iter().take_while(|newer| newer.path != head.path);
                    discard(dir, newer)?;
                    let saved = if weak(head) { loaded.cuts(found.cut()) } else { loaded.saved };
                    return Ok(Loaded { saved, ..loaded });
                }
                Err(again) => damaged = again,
            }
        }
        if let Some(pristine) = pristine {
            let stage = begin(pristine.put_back(damaged.into_service()))?;
            discard(dir, heads.iter())?;
            return Ok(Loaded::nothing(stage));
        }
        if last.path != newest.path {
            let service = damaged.into_service();
            match load(terms, dir, newest, service).map_err(BootError::from)? {
                Ok(loaded) => return Ok(loaded),
                Err(again) => damaged = again,
            }
        }
        Ok(Loaded::in_part(newest, *damaged))
    }

    /// What stands for the file where its state moves no mark: the log is not cut any further.
    fn cuts(&self, cut: Seq) -> Option<(Seq, u64)> {
        self.saved.map(|(_, bytes)| (cut, bytes))
    }

    fn nothing(stage: Stage) -> Loaded {
        Loaded { stage, stable: StableCheckpoint::default(), damage: None, saved: None }
    }

    /// What does not verify is to be fetched.
    fn in_part(head: &CheckpointHead, damaged: Damaged) -> Loaded {
        let stable = head.certificate.clone();
        let (certified, ours) = (stable.clone(), Digest::default());
        let damage = Some(FromStage::Diverged { certified, ours });
        let saved = Some((stable.seq, head.file_bytes));
        Loaded { stage: damaged.stage, stable, damage, saved }
    }
}

impl Pristine {
    fn of(service: &dyn Service) -> Pristine {
        let object = |number| {
            let mut bytes = Vec::new();
            service.get(number, &mut bytes);
            bytes
        };
        Pristine((0..service.objects()).map(object).collect())
    }

    fn put_back(self, mut service: Box<dyn Service>) -> Box<dyn Service> {
        for (number, bytes) in (0..).zip(&self.0) {
            let put = service.put(number, bytes);
            put.expect("a service takes what it has given");
        }
        service
    }
}

/// The checkpoints whose certificates are right, the newest first, and states that a weak quorum
/// has signed. Others are shown certificates, and believe them whole or not at all.
fn credible<'a>(terms: &Terms<'_>, found: &'a Found) -> Vec<&'a CheckpointHead> {
    let right = |head: &&CheckpointHead| {
        let (rules, certificate) = (&terms.rules, &head.certificate);
        let signed =
            rules.certified(terms.keys, certificate) || rules.vouched(terms.keys, certificate);
        let right = head.manifest.digest(terms.stage.group) == certificate.digest && signed;
        if !right {
            let path = head.path.display();
            tracing::warn!(%path, "a checkpoint is not certified by this group");
        }
        right
    };
    found.checkpoints.iter().filter(right).collect()
}

/// The stage from a checkpoint, or what could be read of it.
fn load(
    terms: &Terms<'_>,
    dir: &Dir,
    head: &CheckpointHead,
    service: Box<dyn Service>,
) -> Result<Result<Loaded, Box<Damaged>>, StoreError> {
    let mut reader = dir.checkpoints().read(head)?;
    let mut builder = StageBuilder::new(terms.stage, service, head.manifest);
    while let Some(item) = reader.next_item()? {
        if let Item::Object { part, number, bytes } = item {
            // What is no object of the service is fetched like one that is damaged.
            let _ = builder.put(part, number, &bytes);
        }
    }
    let summary = reader.summary();
    let stable = head.certificate.clone();
    let saved = Some((stable.seq, head.file_bytes));
    Ok(match builder.finish(&stable) {
        Ok(stage) => Ok(Loaded { stage, stable, damage: None, saved }),
        Err(damaged) => {
            let path = head.path.display();
            tracing::warn!(
                %path, corrupt = summary.corrupt, missing = summary.missing,
                "the checkpoint on disk is damaged: the log leads there from the one before, or \
                 what does not verify is fetched"
            );
            Err(damaged)
        }
    })
}

/// Removes files that are damaged, so that no good one has to go for them.
fn discard<'a>(
    dir: &Dir,
    heads: impl Iterator<Item = &'a &'a CheckpointHead>,
) -> Result<(), BootError> {
    let checkpoints = dir.checkpoints();
    for head in heads {
        let path = head.path.display();
        tracing::warn!(%path, "goes on from before the damaged checkpoint, which is removed");
        checkpoints.discard(head)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::crypto::PlainKeys;
    use base::transfer::{Part, SnapshotReader};
    use base::{Batch, Epoch, GroupId, Incarnation, Keyring, Malformed, Quorums, ReplicaId};
    use base::{Stripe, ToStage, View};
    use exec::service::{Completion, Context};
    use exec::stage::StageOutbox;
    use exec::{StageConfig, Turn};
    use proto::Record;
    use proto::group::rules::Rules;
    use proto::pbft::msg::{Checkpoint, Proposal};
    use std::path::Path;
    use std::sync::Arc;
    use store::{Beginning, Durability, Identity, LogOptions, Memory, Storage, Voice};

    use crate::boot::Boot;
    use crate::portion::Portion;

    const GROUP: GroupId = GroupId([1; 32]);
    const IDENTITY: Identity = Identity { group: GROUP, replica: ReplicaId(0) };
    const LAYOUT: LogOptions = LogOptions { segment_bytes: 4 << 10 };

    /// A state of a few objects, of which nothing is asked.
    struct Still(Vec<Vec<u8>>);

    impl Service for Still {
        fn execute(&mut self, _: &[u8], _: &mut Context<'_>, _: &mut Vec<u8>) -> Completion {
            Completion::Done
        }

        fn get(&self, object: u32, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0[object as usize]);
        }

        fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
            self.0[object as usize] = bytes.to_vec();
            Ok(())
        }

        fn objects(&self) -> u32 {
            8
        }
    }

    /// Its objects hold this byte: 0 at the beginning, and something else later on.
    fn service(byte: u8) -> Box<dyn Service> {
        Box::new(Still(vec![vec![byte; 100]; 8]))
    }

    fn keys(me: u16) -> PlainKeys {
        PlainKeys { me: ReplicaId(me), n: 4 }
    }

    fn terms(keys: &PlainKeys) -> Terms<'_> {
        let (stripe, checkpoint_interval) = (Stripe::new(1).expect("in range"), 8);
        let quorums = Quorums::pbft(4, 1).expect("a legal group");
        let (epoch, window) = (Epoch(0), 32);
        Terms {
            identity: IDENTITY,
            stripe,
            stage: StageConfig {
                group: GROUP,
                stripe,
                checkpoint_interval,
                window: 64,
                nulls_ahead: false,
                replicas: 4,
            },
            rules: Rules { group: GROUP, epoch, quorums, window, checkpoint_interval },
            keys,
            fresh: false,
            recover: false,
            durability: Durability::Sync,
            layout: LAYOUT,
            clock: Incarnation(2),
        }
    }

    /// The files of the checkpoints at `seqs`, which a quorum has signed.
    fn save(dir: &Dir, seqs: &[u64]) {
        let own = keys(0);
        let mut stage = Stage::new(terms(&own).stage, service(7));
        let mut out = StageOutbox::new();
        let last = seqs.last().copied().unwrap_or(0);
        for seq in (1..=last).map(Seq) {
            let pin = ToStage::Pin { seq, reader: SnapshotReader::Disk };
            let batch = Arc::new(Batch::Null);
            let wanted = seqs.contains(&seq.0);
            let told = wanted.then_some(pin).into_iter().chain([ToStage::Deliver { seq, batch }]);
            told.for_each(|message| stage.on(message, &mut out).expect("in the window"));
            while stage.run(100, &mut out) != Turn::Idle {}
            let Some(manifest) = stage.pinned_manifest(SnapshotReader::Disk).copied() else {
                continue;
            };
            if !wanted {
                continue;
            }
            let digest = manifest.digest(GROUP);
            let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), seq, digest);
            let proof = (0..3).map(|id| (ReplicaId(id), keys(id).sign(&bytes))).collect();
            let files = dir.checkpoints();
            let mut writer = files.write(seq).expect("nothing fails");
            for part in [Part::Service, Part::Sessions] {
                for object in 0..stage.objects(part) {
                    let bytes = stage.read_pinned(SnapshotReader::Disk, part, object);
                    let written = writer.object(part, object, &bytes.expect("it is pinned"));
                    written.expect("nothing fails");
                }
            }
            let certificate = StableCheckpoint { seq, digest, proof: Arc::new(proof) };
            files.finish(writer, &manifest, &certificate).expect("nothing fails");
        }
    }

    fn committed(seq: u64) -> Record {
        let (seq, batch) = (Seq(seq), Arc::new(Batch::Null));
        let digest = Proposal::Null.digest(GROUP, seq);
        Record::Committed { seq, digest, batch: Some((Proposal::Null, batch)) }
    }

    fn pre_prepared(seq: u64) -> Record {
        let batch = Arc::new(Batch::Null);
        Record::PrePrepared { view: View(0), seq: Seq(seq), proposal: Proposal::Null, batch }
    }

    /// What a first life leaves: these checkpoints, and these records.
    fn left(seqs: &[u64], records: impl IntoIterator<Item = Record>) -> Arc<dyn Storage> {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let opened = Dir::open(Path::new("state"), IDENTITY, Arc::clone(&storage));
        let mut dir = opened.expect("opens").dir;
        let beginning = Beginning { voice: Voice::Whole, why: String::new() };
        let log = dir.begin(&beginning, Incarnation(1), Durability::Sync, LAYOUT);
        let mut log = log.expect("nothing fails").expect("a log");
        save(&dir, seqs);
        let mut portion = Portion { urgent: true, ..Portion::default() };
        for record in records {
            record.encode(&mut portion.bytes);
            portion.ends.push((portion.bytes.len(), record.seq()));
        }
        portion.write(&mut log, true).expect("nothing fails");
        storage
    }

    /// The next life, after a byte of the first object of the checkpoint at `damaged` has changed;
    /// and the checkpoints that are there then.
    fn reborn(storage: &Arc<dyn Storage>, damaged: u64) -> (Boot, Vec<u64>) {
        let path = Path::new("state").join(format!("checkpoint-{damaged:016x}"));
        let file = storage.open(&path).expect("is there");
        let (at, mut byte) = ((8 << 10) + 60, [0]);
        file.read_at(at, &mut byte).expect("it works");
        file.write_at(at, &[byte[0] ^ 1]).expect("it works");
        let own = keys(0);
        let terms = terms(&own);
        let first = |service| Ok(Stage::new(terms.stage, service));
        let place = (Path::new("state"), Arc::clone(storage));
        let boot = Boot::from_dir::<BootError>(&terms, place, service(0), first).expect("begins");
        assert_eq!(boot.beginning, proto::group::Beginning::Whole);
        let heads = boot.dir.as_ref().expect("it has one").checkpoints().heads();
        let there = heads.expect("it works").iter().map(|head| head.manifest.seq.0).collect();
        (boot, there)
    }

    #[test]
    fn a_log_that_leads_to_a_damaged_checkpoint_is_gone_through_from_before_it() {
        for (seqs, from) in [(&[32, 64][..], 32), (&[64], 0)] {
            let storage = left(seqs, (from + 1..=70).map(committed));
            let (boot, there) = reborn(&storage, 64);
            assert!(boot.damage.is_none());
            assert_eq!(boot.stable.seq, Seq(from));
            assert_eq!(there, seqs[..seqs.len() - 1], "the damaged file is of no use");
        }
    }

    /// It was fetched, and with it what is in nobody's log any more. That nothing is doubtful
    /// about the votes is another question.
    #[test]
    fn a_damaged_checkpoint_that_the_log_does_not_lead_to_is_kept_and_mended() {
        let after = || (65..=70).map(committed);
        let beginnings: [Vec<Record>; 4] = [
            vec![],
            (33..=40).map(committed).collect(),
            (33..=64).filter(|seq| *seq != 50).map(committed).collect(),
            // A vote is no decision.
            (33..=63).map(committed).chain([pre_prepared(64)]).collect(),
        ];
        for beginning in beginnings {
            for seqs in [&[64][..], &[32, 64]] {
                let storage = left(seqs, beginning.iter().cloned().chain(after()));
                let (boot, there) = reborn(&storage, 64);
                assert!(boot.damage.is_some(), "the rest of it is to be fetched: {seqs:?}");
                assert_eq!(boot.stable.seq, Seq(64));
                assert_eq!(boot.saved.map(|(seq, _)| seq), Some(Seq(64)));
                assert_eq!(there.first(), Some(&64), "all of it but one object is good");
            }
        }
    }
}

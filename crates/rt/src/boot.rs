//! How a life of this machine's replica begins: from its directory, or from nothing.
//!
//! What is in a directory, whether it lets the replica vote, and the state that it begins with is
//! decided in `durable`, by the code that the simulator runs, too. Here is what belongs to a real
//! start around it: options, the clock's incarnation, the snapshot of a new group, drills.
//!
//! Not here: the files (`store`), the threads (`machine`).

use base::transfer::Part;
use base::{Incarnation, Keyring, StableCheckpoint};
use durable::{Boot, BootError, Terms};
use exec::{Service, Stage, StageBuilder, StageConfig, Undo};
use proto::group::Beginning;
use proto::group::rules::Rules;
use store::{CheckpointReader, Identity, Item};

use crate::clock::wall_ns;
use crate::drill::{Drill, sabotage};
use crate::options::{ReplicaOptions, StartError};

/// Why a group that executes tentatively has no replica with such a service.
const CANNOT_UNDO: &str = "the group executes tentatively (tentative = \"on\"), and its service \
                           cannot take back what it did: found the group with tentative = \"off\"";

/// Reads the directory, decides, and makes the decision durable. Takes the service out of the
/// options, and calls `on_begin`.
///
/// # Errors
/// When the replica must not start like this, or its directory cannot be used.
pub(crate) fn begin(
    options: &mut ReplicaOptions,
    config: StageConfig,
    keys: &dyn Keyring,
) -> Result<Boot, StartError> {
    // The options keep a service that nobody asks.
    let service = std::mem::replace(&mut options.service, Box::new(Nothing));
    let service = sabotage(service, options.drill);
    if options.group.settings().tentative && service.undo() == Undo::Never {
        return Err(StartError::Options(CANNOT_UNDO));
    }
    if options.drill == Some(Drill::Forget) {
        forget(options)?;
    }
    let boot = match &options.state_dir {
        Some(path) => {
            let storage = options.storage.clone();
            let first = |service| first_stage(options, config, service);
            let terms = terms(options, config, keys);
            Boot::from_dir(&terms, (path, storage), service, first)?
        }
        None => from_nothing(options, config, service)?,
    };
    if let Some(on_begin) = options.on_begin.take() {
        on_begin().map_err(StartError::Begin)?;
    }
    Ok(boot)
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> StartError {
        match error {
            BootError::Store(error) => StartError::Store(error),
            BootError::Refused(refusal) => StartError::Refused(refusal),
            BootError::Records { dir, what } => StartError::Records { dir, what },
        }
    }
}

fn terms<'a>(options: &ReplicaOptions, stage: StageConfig, keys: &'a dyn Keyring) -> Terms<'a> {
    let (group, settings) = (&options.group, options.group.settings());
    Terms {
        identity: Identity { group: group.id(), replica: options.id },
        stripe: group.stripe(),
        stage,
        rules: Rules {
            group: group.id(),
            epoch: group.epoch(),
            quorums: group.quorums(),
            window: settings.window,
            checkpoint_interval: settings.checkpoint_interval,
        },
        keys,
        fresh: options.fresh,
        recover: options.recover,
        durability: options.durability,
        layout: options.log.layout,
        clock: Incarnation(wall_ns()),
    }
}

fn from_nothing(
    options: &ReplicaOptions,
    config: StageConfig,
    service: Box<dyn Service>,
) -> Result<Boot, StartError> {
    let whole = options.fresh && !options.recover;
    Ok(Boot {
        incarnation: Incarnation(wall_ns()),
        beginning: if whole { Beginning::Whole } else { Beginning::Forgetful },
        resumes: !options.fresh,
        dir: None,
        log: None,
        stage: first_stage(options, config, service)?,
        stable: StableCheckpoint::default(),
        damage: None,
        records: vec![Vec::new(); usize::from(options.group.pillars())],
        group_records: Vec::new(),
        saved: None,
    })
}

/// For the drill of that name: throws everything away and starts as if that were the first time.
fn forget(options: &mut ReplicaOptions) -> Result<(), StartError> {
    (options.fresh, options.recover) = (true, false);
    let Some(dir) = &options.state_dir else { return Ok(()) };
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn first_stage(
    options: &ReplicaOptions,
    config: StageConfig,
    service: Box<dyn Service>,
) -> Result<Stage, StartError> {
    let Some(path) = &options.seed else { return Ok(Stage::new(config, service)) };
    let wrong = |what: String| StartError::Seed { path: path.clone(), what };
    let mut reader = CheckpointReader::open(&*options.storage, path)?;
    let mut builder = StageBuilder::new(config, service, reader.head().manifest);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Object { part: Part::Service, number, bytes } => builder
                .put(Part::Service, number, &bytes)
                .map_err(|e| wrong(format!("object {number} is none of this service: {e}")))?,
            Item::Object { part: Part::Sessions, .. } => {}
            Item::Corrupt { .. } | Item::Lost { .. } => {
                return Err(wrong("it is damaged".to_owned()));
            }
        }
    }
    builder.seed().map_err(|e| wrong(e.to_string()))
}

/// Stands in the options' place of the service once that has moved to the stage.
struct Nothing;

impl Service for Nothing {
    fn execute(
        &mut self,
        _: &[u8],
        _: &mut exec::Context<'_>,
        _: &mut Vec<u8>,
    ) -> exec::Completion {
        exec::Completion::Done
    }

    fn get(&self, _: u32, _: &mut Vec<u8>) {}

    fn put(&mut self, _: u32, _: &[u8]) -> Result<(), base::Malformed> {
        Ok(())
    }
}

//! The mutator: real messages with one thing changed, authenticated again (after ByzzFuzz,
//! Winter et al. 2023).
//!
//! Every field of every message is changed, by one, to nothing, to the most, to what was heard
//! elsewhere; those that were changed least come first. What the faulty replica signs it signs
//! again with its own key, unless it is a signature that was changed. What nobody can read any
//! more stays with it, as a decoder would refuse it. Not here: how fields are found
//! (`fields`), and what becomes of a value (`touch`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{PillarId, Reader, Reply, View};
use proto::pbft::msg::Message;

use super::kind::Kind;
use super::sample::sample;
use super::sign::Signer;
use super::touch::{Aim, Pools, Touch};
use crate::host::GROUP;
use crate::prng::{Prng, Ratio};

/// Of so many messages that are heard one is learnt from.
const LEARN_ONE_IN: u32 = 4;

/// How often each field of each message was changed.
pub type Table = BTreeMap<(Kind, &'static str), u64>;

/// What a mutator has heard, and done.
#[derive(Debug, Default)]
pub(super) struct Mutator {
    pools: Pools,
    /// The last message of each kind.
    last: BTreeMap<Kind, (PillarId, Message)>,
    pub(super) table: Table,
    /// The table names every field.
    full: bool,
    /// Changes that no decoder lets pass.
    pub(super) unreadable: u64,
}

impl Mutator {
    /// Learns from a message that a faulty replica hears or wants to say.
    pub(super) fn hears(&mut self, pillar: PillarId, message: &Message, prng: &mut Prng) {
        let kind = Kind::of(message);
        let known = self.last.contains_key(&kind);
        if known && !prng.chance(Ratio(1, LEARN_ONE_IN)) {
            return;
        }
        let (mut copy, mut link) = (message.clone(), pillar);
        let (salt, pools) = (prng.next_u64(), &mut self.pools);
        Touch { aim: Aim::Learn, salt, broken: false, pools, prng }.packet(&mut link, &mut copy);
        self.last.insert(kind, (pillar, message.clone()));
    }

    /// The message with one field changed and authenticated by `signer`, and the pillar on whose
    /// link it goes. `None` when nobody could read it.
    pub(super) fn change(
        &mut self,
        signer: &Signer<'_>,
        (mut pillar, mut message): (PillarId, Message),
        prng: &mut Prng,
    ) -> Option<(PillarId, Message)> {
        let (kind, salt) = (Kind::of(&message), prng.next_u64());
        let pools = &mut self.pools;
        let mut walk = Touch { aim: Aim::List(Vec::new()), salt, broken: false, pools, prng };
        walk.packet(&mut pillar, &mut message);
        let Aim::List(names) = walk.aim else { unreachable!("the aim stays") };
        let at = choose(&self.table, kind, &names, walk.prng);
        walk.aim = Aim::Change(Some(at));
        walk.packet(&mut pillar, &mut message);
        let (name, broken) = (names[at], walk.broken);
        *self.table.entry((kind, name)).or_default() += 1;
        if !name.ends_with("signature") && name != "authenticator" {
            signer.sign(&mut message);
        }
        let message = read(&message).filter(|_| !broken);
        self.unreadable += u64::from(message.is_none());
        Some((pillar, message?))
    }

    /// A message out of the blue: one of those kinds that were changed least, with a change.
    pub(super) fn invent(
        &mut self,
        signer: &Signer<'_>,
        prng: &mut Prng,
    ) -> Option<(PillarId, Message)> {
        if !self.full {
            self.full = true;
            for field in all_fields() {
                self.table.entry(field).or_default();
            }
        }
        let kinds = Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Reply);
        let few = |kind: &Kind| -> u64 {
            let of = (*kind, "")..=(*kind, "\u{10ffff}");
            self.table.range(of).map(|(_, count)| *count).min().unwrap_or(0)
        };
        let kind = match prng.below(2) {
            0 => kinds.min_by_key(few).expect("there are kinds"),
            _ => Kind::ALL[prng.below(Kind::ALL.len() as u64 - 1) as usize],
        };
        let known = self.last.get(&kind).cloned();
        let known = known.filter(|_| prng.chance(Ratio(1, 2)));
        let base = known.or_else(|| {
            let mut message = sample(kind, signer, &self.pools, prng)?;
            signer.sign(&mut message);
            Some((PillarId(0), message))
        });
        self.change(signer, base?, prng)
    }

    /// A reply with one field changed, and its view.
    pub(super) fn change_reply(
        &mut self,
        (mut view, content): (View, &Arc<Vec<u8>>),
        prng: &mut Prng,
    ) -> Option<(View, Arc<Vec<u8>>)> {
        let mut reply = Reply::decode(&mut Reader::new(content)).ok()?;
        let (salt, pools) = (prng.next_u64(), &mut self.pools);
        let mut walk = Touch { aim: Aim::List(Vec::new()), salt, broken: false, pools, prng };
        walk.reply(&mut view, &mut reply);
        let Aim::List(names) = walk.aim else { unreachable!("the aim stays") };
        let at = choose(&self.table, Kind::Reply, &names, walk.prng);
        walk.aim = Aim::Change(Some(at));
        walk.reply(&mut view, &mut reply);
        *self.table.entry((Kind::Reply, names[at])).or_default() += 1;
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        Some((view, Arc::new(bytes)))
    }
}

/// Which field changes: one of the least changed, or any.
fn choose(table: &Table, kind: Kind, names: &[&'static str], prng: &mut Prng) -> usize {
    let any = prng.below(names.len() as u64) as usize;
    let count = |at: &usize| table.get(&(kind, names[*at])).copied().unwrap_or(0);
    match prng.below(2) {
        0 => (0..names.len()).min_by_key(count).unwrap_or(any),
        _ => any,
    }
}

/// The message as a decoder reads it.
fn read(message: &Message) -> Option<Message> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let mut r = Reader::new(&bytes);
    Message::decode(GROUP, &mut r).ok().filter(|_| r.is_empty())
}

/// Every field of every message: what a table should be full of.
#[must_use]
pub fn all_fields() -> Vec<(Kind, &'static str)> {
    let mut pools = Pools::default();
    let mut prng = Prng::new(1);
    let mut all = Vec::new();
    for kind in Kind::ALL.iter().copied() {
        let message = sample(kind, &Signer::nobody(), &pools, &mut prng);
        let aim = Aim::List(Vec::new());
        let mut walk = Touch { aim, salt: 0, broken: false, pools: &mut pools, prng: &mut prng };
        match message {
            Some(mut message) => walk.packet(&mut PillarId(0), &mut message),
            None => walk.reply(&mut View(0), &mut super::sample::reply()),
        }
        let Aim::List(names) = walk.aim else { unreachable!("the aim stays") };
        all.extend(names.into_iter().map(|name| (kind, name)));
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message is another one afterwards, or none that can be read; no field is left out.
    #[test]
    fn every_field_of_every_message_is_changed() {
        let mut mutator = Mutator::default();
        let signer = Signer::nobody();
        let mut prng = Prng::new(5);
        for _ in 0..60 {
            for kind in Kind::ALL.iter().copied() {
                let Some(message) = sample(kind, &signer, &mutator.pools, &mut prng) else {
                    continue;
                };
                let before = (PillarId(0), message);
                let after = mutator.change(&signer, before.clone(), &mut prng);
                assert_ne!(after, Some(before), "{kind:?}");
            }
        }
        for (kind, field) in all_fields().into_iter().filter(|(kind, _)| *kind != Kind::Reply) {
            assert!(mutator.table.contains_key(&(kind, field)), "{kind:?} {field}");
        }
        assert!(all_fields().len() > 150, "{}", all_fields().len());
    }
}

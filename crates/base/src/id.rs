//! Identifiers, each its own type so that one kind is never taken for another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A replica of the group: `0..n`. Also its index in membership lists and vote sets.
    ReplicaId(u16), "r"
);
id!(
    /// A principal that may send requests: an entry of the group's client list. A gateway is
    /// one principal; a logical client may be one of its own.
    ClientId(u32), "c"
);
id!(
    /// A pillar of the group: `0..P`. Pillar p owns the sequence numbers p + i·P (COP §4.2.1).
    PillarId(u16), "p"
);
id!(
    /// A view: the period in which one assignment of leaders holds (PBFT). One view for the
    /// whole replica, shared by all its pillars.
    View(u64), "v"
);
id!(
    /// A sequence number of the total order. The first batch is 1; 0 means "before the first".
    Seq(u64), "n"
);
id!(
    /// A membership epoch. The genesis configuration is epoch 0.
    Epoch(u32), "e"
);
id!(
    /// One life of a process under an identity. Strictly grows with each start.
    Incarnation(u64), "i"
);
id!(
    /// A session of a principal, opened by an ordered request. Chosen by the client, strictly
    /// greater than every session that the principal opened before.
    SessionId(u64), "s"
);

impl Seq {
    /// The next sequence number.
    ///
    /// # Panics
    /// After 2^64 - 1 batches, which no group lives to see.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0.checked_add(1).expect("sequence numbers do not run out"))
    }

    /// The number before this one; `Seq(0)` stays.
    #[must_use]
    pub fn prev(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

impl View {
    /// The leader of this view under fixed leadership: l = v mod n.
    ///
    /// # Panics
    /// When `n` is zero.
    #[must_use]
    pub fn leader(self, n: u16) -> ReplicaId {
        let leader = self.0 % u64::from(n);
        ReplicaId(u16::try_from(leader).expect("a remainder below a u16 fits a u16"))
    }
}

/// The group's identity: a digest of its genesis configuration. Bound into every seal,
/// digest and signature, so that nothing said in one group means anything in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupId(pub [u8; 32]);

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("g")?;
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

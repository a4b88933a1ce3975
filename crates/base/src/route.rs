//! Where an operation belongs in a group whose state falls into partitions.
//!
//! A partition is an agreement group of its own; it shares nothing with the others but the
//! processes and the keys of the members. Which of them an operation is for follows from its bytes
//! and from the number of partitions alone, so that clients, gateways and replicas come to the same
//! answer. Not here: the function itself, which is the service's.

/// Where an operation belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Its result depends on the state of no partition: any may answer it.
    Anywhere,
    /// In this partition, counted from 0.
    To(u16),
    /// Nowhere, since no partition could execute it alone: this is its result, and nobody executes
    /// it.
    Refused(&'static [u8]),
}

/// How a service's operations find their partition.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Where an operation belongs, given its bytes and the number of partitions, at least 1. Bytes
    /// that are no operation belong anywhere: their result says so.
    pub route: fn(&[u8], u16) -> Route,
    /// The result of an operation that came to another partition than its own, from a client that
    /// routes it differently: it is not executed.
    pub astray: &'static [u8],
}

impl Routing {
    /// Why partition `own` of `partitions` does not execute `op`: the result to give instead.
    #[must_use]
    pub fn refusal(&self, op: &[u8], own: u16, partitions: u16) -> Option<&'static [u8]> {
        match (self.route)(op, partitions) {
            Route::Anywhere => None,
            Route::To(partition) => (partition != own).then_some(self.astray),
            Route::Refused(result) => Some(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_length(op: &[u8], partitions: u16) -> Route {
        match op {
            [] => Route::Anywhere,
            [b'?', ..] => Route::Refused(b"several"),
            _ => Route::To(u16::try_from(op.len()).expect("short") % partitions),
        }
    }

    #[test]
    fn a_partition_executes_its_own_and_what_is_nobodys() {
        let routing = Routing { route: by_length, astray: b"astray" };
        let refusal = |op: &[u8], own| routing.refusal(op, own, 3);
        assert_eq!(refusal(b"", 2), None);
        assert_eq!((refusal(b"abcd", 1), refusal(b"abcd", 0)), (None, Some(&b"astray"[..])));
        assert_eq!(refusal(b"?", 1), Some(&b"several"[..]));
    }
}

//! Dependence by function and arguments, as CBASE §5.2 has it.
//!
//! For services that know what their operations are called sooner than what they touch: an NFS
//! server whose requests are a procedure and a file handle. Comparing is pairwise, so an
//! insertion costs in proportion to what is pending; footprints do not
//! ([`crate::Service::footprint`]).

use alloc::vec;
use alloc::vec::Vec;

/// An operation as its rules see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// The function, `0..` the number of functions.
    pub function: u16,
    /// What of the arguments matters: whatever [`Operators::related`] compares.
    pub args: Vec<u8>,
}

/// The rules by which operations depend on each other. All are symmetric, and functions of
/// their arguments alone. The defaults say that everything depends on everything, and each can
/// be refined by itself.
pub trait Operators: Send + Sync {
    /// The request parser. `None` when the operation is not known: it then depends on
    /// everything.
    fn parse(&self, op: &[u8]) -> Option<Invocation>;

    /// The operator concurrency matrix: whether two functions depend on each other whatever
    /// their arguments.
    fn always(&self, a: u16, b: u16) -> bool {
        let _ = (a, b);
        true
    }

    /// The argument analysis function: whether invocations with these arguments may access
    /// common state, one of them writing, for any two functions that do not depend always.
    fn related(&self, a: &[u8], b: &[u8]) -> bool {
        let _ = (a, b);
        true
    }

    /// The operator and argument concurrency matrix: whether two functions depend on each other
    /// when their arguments are related.
    fn when_related(&self, a: u16, b: u16) -> bool {
        let _ = (a, b);
        true
    }

    /// Whether [`crate::Service::deadline`] may be earlier after the operation than before. Of a
    /// service without deadlines: false.
    fn schedules(&self, op: &[u8]) -> bool {
        let _ = op;
        true
    }

    /// Whether two invocations depend on each other.
    fn depend(&self, a: &Invocation, b: &Invocation) -> bool {
        self.always(a.function, b.function)
            || (self.related(&a.args, &b.args) && self.when_related(a.function, b.function))
    }
}

/// The two matrices over a number of functions, to be refined step by step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matrices {
    functions: usize,
    always: Vec<bool>,
    when_related: Vec<bool>,
}

impl Matrices {
    /// Every function depends on every one.
    #[must_use]
    pub fn new(functions: u16) -> Matrices {
        let functions = usize::from(functions);
        let all = vec![true; functions * functions];
        Matrices { functions, always: all.clone(), when_related: all }
    }

    /// From now on `a` and `b` depend on each other only when their arguments are related.
    ///
    /// # Panics
    /// When there is no such function.
    #[must_use]
    pub fn by_arguments(self, a: u16, b: u16) -> Matrices {
        self.set(a, b, false, true)
    }

    /// From now on `a` and `b` never depend on each other.
    ///
    /// # Panics
    /// When there is no such function.
    #[must_use]
    pub fn independent(self, a: u16, b: u16) -> Matrices {
        self.set(a, b, false, false)
    }

    /// For [`Operators::always`]. Functions that are not there depend on everything.
    #[must_use]
    pub fn always(&self, a: u16, b: u16) -> bool {
        self.place(a, b).is_none_or(|place| self.always[place])
    }

    /// For [`Operators::when_related`].
    #[must_use]
    pub fn when_related(&self, a: u16, b: u16) -> bool {
        self.place(a, b).is_none_or(|place| self.when_related[place])
    }

    fn set(mut self, a: u16, b: u16, always: bool, when_related: bool) -> Matrices {
        for (a, b) in [(a, b), (b, a)] {
            let place = self.place(a, b).expect("a function that the matrices are over");
            self.always[place] = always;
            self.when_related[place] = when_related;
        }
        self
    }

    fn place(&self, a: u16, b: u16) -> Option<usize> {
        let (a, b) = (usize::from(a), usize::from(b));
        (a < self.functions && b < self.functions).then_some(a * self.functions + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_begin_with_everything_and_are_refined_symmetrically() {
        let m = Matrices::new(3);
        assert!((0..4).all(|a| (0..4).all(|b| m.always(a, b) && m.when_related(a, b))));
        let m = m.by_arguments(0, 1).independent(2, 2);
        assert_eq!((m.always(1, 0), m.when_related(0, 1)), (false, true));
        assert_eq!((m.always(2, 2), m.when_related(2, 2)), (false, false));
        assert!(m.always(0, 2) && m.always(0, 0) && m.always(3, 2));
    }
}

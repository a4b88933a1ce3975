//! Makes a failing plan smaller: what can be left out so that it still fails in the same way?
//!
//! The result is a list of edits to the plan of a seed, short enough for a command line or a
//! regression test. Greedy: it leaves out many incidents at once as long as that works, then one
//! by one, then simplifies the shape, until nothing more helps.

use std::fmt;
use std::str::FromStr;

use base::Span;

use crate::options::Net;
use crate::plan::Plan;

/// Something that is left out of a plan, or made simpler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The incident of this place in the plan does not happen.
    Drop(u64),
    /// The replica of this place in the plan's list of faulty ones is correct.
    Honest(u64),
    /// No client attacks.
    Quiet(u64),
    /// The network is calm but for incidents.
    Calm(u64),
    /// Each input has its turn at once, and executing takes no time.
    Prompt(u64),
    /// There are so many clients.
    Clients(u64),
    /// Each client asks so many operations.
    Ops(u64),
    /// Each client keeps so many outstanding.
    Outstanding(u64),
    /// The faults last so many milliseconds.
    Millis(u64),
    /// No core is mended alone.
    Whole(u64),
    /// The run ends when the core has its answers.
    Short(u64),
}

type Make = fn(u64) -> Edit;

/// The words of the command line.
const WORDS: [(&str, Make); 11] = [
    ("drop", Edit::Drop),
    ("honest", Edit::Honest),
    ("quiet", Edit::Quiet),
    ("calm", Edit::Calm),
    ("prompt", Edit::Prompt),
    ("clients", Edit::Clients),
    ("ops", Edit::Ops),
    ("outstanding", Edit::Outstanding),
    ("millis", Edit::Millis),
    ("whole", Edit::Whole),
    ("short", Edit::Short),
];

impl Edit {
    fn number(self) -> u64 {
        let (Edit::Drop(n)
        | Edit::Honest(n)
        | Edit::Quiet(n)
        | Edit::Calm(n)
        | Edit::Prompt(n)
        | Edit::Clients(n)
        | Edit::Ops(n)
        | Edit::Outstanding(n)
        | Edit::Millis(n)
        | Edit::Whole(n)
        | Edit::Short(n)) = self;
        n
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.number();
        let word = WORDS.iter().find(|(_, make)| make(n) == *self).map_or("", |(word, _)| word);
        write!(f, "{word}{n}")
    }
}

impl FromStr for Edit {
    type Err = String;

    fn from_str(text: &str) -> Result<Edit, String> {
        let digits = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let (word, number) = text.split_at(digits);
        let make = WORDS.iter().find(|(known, _)| *known == word);
        let number = number.parse().ok();
        let edit = make.zip(number).map(|((_, make), number)| make(number));
        edit.ok_or_else(|| format!("`{text}` is no edit, such as drop3 or clients1"))
    }
}

impl Plan {
    /// The plan with these edits. Places count in the plan as it was before all of them.
    #[must_use]
    pub fn edited(&self, edits: &[Edit]) -> Plan {
        let mut plan = self.clone();
        let mut place = 0;
        plan.incidents.retain(|_| {
            place += 1;
            !edits.contains(&Edit::Drop(place - 1))
        });
        let mut place = 0;
        plan.faulty.retain(|_| {
            place += 1;
            !edits.contains(&Edit::Honest(place - 1))
        });
        for edit in edits {
            match *edit {
                Edit::Drop(_) | Edit::Honest(_) => {}
                Edit::Quiet(_) => plan.assault = None,
                Edit::Calm(_) => plan.options.net = Net::CALM,
                Edit::Prompt(_) => plan.options.inside.late = false,
                Edit::Clients(n) => plan.options.clients = n as u32,
                Edit::Ops(n) => plan.options.ops_per_client = n,
                Edit::Outstanding(n) => plan.options.outstanding = n as u32,
                Edit::Millis(n) => plan.length = Span::millis(n),
                Edit::Whole(_) => plan.core = false,
                Edit::Short(_) => plan.all = false,
            }
        }
        plan
    }
}

/// Edits of `plan` with which it still `fails`. Calls that at most `runs_max` times.
pub fn minimize(plan: &Plan, runs_max: usize, mut fails: impl FnMut(&Plan) -> bool) -> Vec<Edit> {
    let mut search = Search { plan, edits: Vec::new(), runs_left: runs_max };
    loop {
        let before = search.edits.len();
        search.drop_incidents(&mut fails);
        for place in 0..plan.faulty.len() as u64 {
            search.attempt(&[Edit::Honest(place)], &mut fails);
        }
        let simpler: [Make; 5] = [Edit::Quiet, Edit::Calm, Edit::Prompt, Edit::Whole, Edit::Short];
        for make in simpler {
            search.attempt(&[make(1)], &mut fails);
        }
        let options = &plan.options;
        search.lessen(Edit::Clients, u64::from(options.clients), &mut fails);
        search.lessen(Edit::Outstanding, u64::from(options.outstanding), &mut fails);
        search.lessen(Edit::Ops, options.ops_per_client, &mut fails);
        search.lessen(Edit::Millis, plan.length.0 / Span::millis(1).0, &mut fails);
        if search.edits.len() == before || search.runs_left == 0 {
            return search.edits;
        }
    }
}

struct Search<'a> {
    plan: &'a Plan,
    edits: Vec<Edit>,
    runs_left: usize,
}

impl Search<'_> {
    /// Keeps the edits if the plan still fails with them, too.
    fn attempt(&mut self, more: &[Edit], fails: &mut impl FnMut(&Plan) -> bool) -> bool {
        let new = more.iter().copied().filter(|edit| !self.edits.contains(edit));
        let new: Vec<Edit> = new.collect();
        if new.is_empty() || self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let all: Vec<Edit> = self.edits.iter().copied().chain(new).collect();
        let still = fails(&self.plan.edited(&all));
        if still {
            self.edits = all;
        }
        still
    }

    fn drop_incidents(&mut self, fails: &mut impl FnMut(&Plan) -> bool) {
        let count = self.plan.incidents.len() as u64;
        let mut size = count;
        while size > 0 {
            for from in (0..count).step_by(size as usize) {
                let places = from..(from + size).min(count);
                let drops: Vec<Edit> = places.map(Edit::Drop).collect();
                self.attempt(&drops, fails);
            }
            size /= 2;
        }
    }

    /// As few as still fail, by halving.
    fn lessen(&mut self, make: Make, most: u64, fails: &mut impl FnMut(&Plan) -> bool) {
        let same = |edit: &Edit| make(edit.number()) == *edit;
        let so_far = self.edits.iter().copied().rfind(same).map(Edit::number);
        let mut lowest = so_far.unwrap_or(most) / 2;
        while lowest > 0 && self.attempt(&[make(lowest)], fails) {
            lowest /= 2;
        }
        // Only the last of them counts.
        let last = self.edits.iter().rposition(same);
        let mut place = 0;
        self.edits.retain(|edit| {
            place += 1;
            !same(edit) || last == Some(place - 1)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;

    fn crashes(plan: &Plan) -> usize {
        let faults = plan.incidents.iter().flat_map(|incident| &incident.faults);
        faults.filter(|(_, fault)| matches!(fault, Fault::Pause(_))).count()
    }

    #[test]
    fn nothing_is_left_but_what_it_takes() {
        let rich = |plan: &Plan| crashes(plan) >= 2 && plan.incidents.len() > 5;
        let plan = (0..).map(Plan::new).find(rich).expect("some seed has that");
        let edits =
            minimize(&plan, 1_000, |plan| crashes(plan) >= 2 && plan.options.ops_per_client >= 9);
        let least = plan.edited(&edits);
        assert_eq!((least.incidents.len(), crashes(&least)), (2, 2), "{edits:?}");
        assert!((9..18).contains(&least.options.ops_per_client), "{edits:?}");
        assert!(least.assault.is_none() && least.options.clients == 1, "{edits:?}");
        let prompt = !least.options.inside.late;
        assert!(least.faulty.is_empty() && !least.core && prompt, "{edits:?}");
    }

    #[test]
    fn edits_are_words() {
        for (word, make) in WORDS {
            let text = format!("{word}17");
            assert_eq!((make(17).to_string(), text.parse()), (text, Ok(make(17))));
        }
        assert!("drop".parse::<Edit>().is_err() && "7".parse::<Edit>().is_err());
    }

    #[test]
    fn a_search_that_may_not_run_changes_nothing() {
        assert_eq!(minimize(&Plan::new(3), 0, |_| true), []);
    }
}

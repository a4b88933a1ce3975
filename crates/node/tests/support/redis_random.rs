//! Random Redis commands from templates over small universes, so that commands hit each other.

use std::collections::BTreeMap;

use crate::redis_templates::{
    FLOATS, INTEGERS, KEY_PREFIXES, MILLIS, PATTERNS, SECONDS, TEMPLATES, TYPES,
};

/// A small generator of pseudo-random numbers (SplitMix64): a seed names a run.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

pub type Args = Vec<Vec<u8>>;

/// Makes commands.
pub struct Generator {
    rng: Rng,
    /// Whether a template's command is in the service's table.
    templates: Vec<&'static str>,
    now_s: u64,
}

impl Generator {
    /// `supported` says of a name in lower case whether the command exists; `now_s` is the Unix
    /// time that expiries are relative to.
    pub fn new(seed: u64, now_s: u64, supported: impl Fn(&str) -> bool) -> Generator {
        let mut templates = Vec::new();
        for (weight, template) in TEMPLATES {
            let name = template.split(' ').next().expect("a template has a name");
            if supported(name) || name == "nosuch" {
                templates.extend(std::iter::repeat_n(*template, *weight));
            }
        }
        Generator { rng: Rng(seed), templates, now_s }
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// One command.
    pub fn command(&mut self) -> Args {
        let template = self.templates[self.rng.below(self.templates.len())];
        let mut words = Vec::new();
        self.expand(template, &mut words);
        self.fix_counts(&mut words);
        let zero_scores = words[0] == b"zadd" && words[1].starts_with(b"y");
        let local = matches!(&words[0][..], b"command" | b"client" | b"config" | b"select");
        if !zero_scores && !local && self.rng.chance(4) {
            self.spoil(&mut words);
            start_scans_at_zero(&mut words);
            stay_in_database_zero(&mut words);
        }
        keep_expiries_away(&mut words);
        keep_choices_short(&mut words);
        if self.rng.chance(20) {
            words[0].make_ascii_uppercase();
        }
        words
    }

    /// Expands a template.
    fn expand(&mut self, template: &str, out: &mut Args) {
        let mut rest = template.trim_start();
        while !rest.is_empty() {
            match rest.as_bytes()[0] {
                b'[' => {
                    let (inner, tail) = bracketed(rest);
                    if self.rng.chance(35) {
                        self.expand(inner, out);
                    }
                    rest = tail;
                }
                b'{' => {
                    let (inner, tail) = bracketed(rest);
                    // Now and then many, so that collections outgrow their small encodings.
                    let most = if self.rng.chance(2) { 120 } else { 4 };
                    for _ in 0..1 + self.rng.below(most) {
                        self.expand(inner, out);
                    }
                    rest = tail;
                }
                b'(' => {
                    let (inner, tail) = bracketed(rest);
                    let options = alternatives(inner);
                    let option = options[self.rng.below(options.len())];
                    self.expand(option, out);
                    rest = tail;
                }
                _ => {
                    let end = rest.find(' ').unwrap_or(rest.len());
                    let word = self.word(&rest[..end]);
                    out.push(word);
                    rest = &rest[end..];
                }
            }
            rest = rest.trim_start();
        }
    }

    fn word(&mut self, word: &str) -> Vec<u8> {
        match word.strip_prefix('$') {
            Some(kind) => self.placeholder(kind),
            None if self.rng.chance(30) => word.to_ascii_lowercase().into_bytes(),
            None => word.as_bytes().to_vec(),
        }
    }

    fn key(&mut self, prefix: &str) -> Vec<u8> {
        let prefix = if self.rng.chance(88) { prefix } else { self.rng.pick(&KEY_PREFIXES) };
        format!("{prefix}{}", self.rng.below(4)).into_bytes()
    }

    /// A value for a placeholder.
    fn placeholder(&mut self, kind: &str) -> Vec<u8> {
        let now = self.now_s;
        match kind {
            "s" | "h" | "l" | "x" | "z" => self.key(kind),
            // Sorted sets whose members all have the score 0, for ranges by member: what these
            // mean otherwise is left open. No other command writes these keys.
            "y" => format!("y{}", self.rng.below(2)).into_bytes(),
            "k" => {
                let prefix = self.rng.pick(&KEY_PREFIXES);
                self.key(prefix)
            }
            "zx" => {
                let prefix = if self.rng.chance(70) { "z" } else { "x" };
                self.key(prefix)
            }
            "v" => self.value(),
            "f" | "m" if self.rng.chance(12) => {
                format!("{kind}{}", self.rng.below(300)).into_bytes()
            }
            "f" => format!("f{}", self.rng.below(6)).into_bytes(),
            "m" if self.rng.chance(60) => format!("m{}", self.rng.below(8)).into_bytes(),
            "m" => self.value(),
            "i" => self.rng.pick(&INTEGERS).as_bytes().to_vec(),
            "n" => match self.rng.below(20) {
                0 => self.rng.pick(&INTEGERS).as_bytes().to_vec(),
                1..=5 => format!("-{}", 1 + self.rng.below(6)).into_bytes(),
                _ => self.rng.below(8).to_string().into_bytes(),
            },
            "d" => match self.rng.below(3) {
                0 => self.rng.pick(&FLOATS).as_bytes().to_vec(),
                1 => self.rng.below(10).to_string().into_bytes(),
                _ => {
                    let (whole, part) = (self.rng.below(100), self.rng.below(100));
                    let sign = if self.rng.chance(30) { "-" } else { "" };
                    format!("{sign}{whole}.{part}").into_bytes()
                }
            },
            "b" => self.rng.pick(&["0", "1", "1", "0", "2", "x"]).as_bytes().to_vec(),
            "o" => match self.rng.below(12) {
                0 => self.rng.pick(&["-1", "x", "4294967296", "100663296"]).as_bytes().to_vec(),
                _ => self.rng.below(200).to_string().into_bytes(),
            },
            "bt" => self.bitfield_type(),
            "bo" => {
                let hash = if self.rng.chance(30) { "#" } else { "" };
                format!("{hash}{}", self.rng.below(70)).into_bytes()
            }
            "p" => self.rng.pick(&PATTERNS).as_bytes().to_vec(),
            "type" => self.rng.pick(&TYPES).as_bytes().to_vec(),
            "t" => self.rng.pick(&SECONDS).as_bytes().to_vec(),
            "mt" => self.rng.pick(&MILLIS).as_bytes().to_vec(),
            "T" => (now + 100_000 * (1 + self.rng.below(4) as u64)).to_string().into_bytes(),
            "MT" => {
                (now * 1000 + 100_000_000 * (1 + self.rng.below(4) as u64)).to_string().into_bytes()
            }
            "sc" => match self.rng.below(4) {
                0 => self.rng.pick(&["-inf", "+inf", "(1", "(-2.5", "x", "(inf"]).into(),
                1 => format!("({}", self.rng.below(10)).into_bytes(),
                _ => self.placeholder("d"),
            },
            "lx" => match self.rng.below(3) {
                0 => self.rng.pick(&["-", "+", "-", "+", "m1", "[", "("]).into(),
                1 => [b"[", &self.placeholder("m")[..]].concat(),
                _ => [b"(", &self.placeholder("m")[..]].concat(),
            },
            "nk" => b"$nk".to_vec(),
            other => panic!("placeholder {other}"),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.below(10) {
            0..=2 => self.rng.pick(&INTEGERS).as_bytes().to_vec(),
            3 => self.rng.pick(&FLOATS).as_bytes().to_vec(),
            4 => vec![b'a' + self.rng.below(26) as u8; self.rng.below(120)],
            5 => (0..self.rng.below(12)).map(|_| self.rng.below(256) as u8).collect(),
            6 => Vec::new(),
            _ => format!("m{}", self.rng.below(8)).into_bytes(),
        }
    }

    fn bitfield_type(&mut self) -> Vec<u8> {
        match self.rng.below(10) {
            0 => self.rng.pick(&["u64", "i65", "u0", "x8", "i", "i64", "u63"]).into(),
            _ => {
                let sign = if self.rng.chance(50) { "u" } else { "i" };
                format!("{sign}{}", 1 + self.rng.below(20)).into_bytes()
            }
        }
    }

    /// Replaces `$nk` by the number of keys that follow, mostly.
    fn fix_counts(&mut self, words: &mut Args) {
        let Some(at) = words.iter().position(|word| word == b"$nk") else { return };
        let is_key = |word: &Vec<u8>| {
            word.len() == 2 && KEY_PREFIXES.iter().any(|p| p.as_bytes()[0] == word[0])
        };
        let keys = words[at + 1..].iter().take_while(|word| is_key(word)).count();
        let lie = self.rng.chance(6);
        words[at] = if lie { self.placeholder("n") } else { keys.to_string().into_bytes() };
    }

    /// Makes a command wrong, or differently right.
    fn spoil(&mut self, words: &mut Args) {
        match self.rng.below(4) {
            0 if words.len() > 1 => {
                words.pop();
            }
            1 => {
                let extra = self.value();
                words.push(extra);
            }
            2 if words.len() > 1 => {
                let at = 1 + self.rng.below(words.len() - 1);
                words.remove(at);
            }
            _ if words.len() > 1 => {
                let at = 1 + self.rng.below(words.len() - 1);
                words[at] = self.value();
            }
            _ => {}
        }
    }
}

/// A key must not expire while the test looks at it, since no two servers do that at the same
/// moment: small numbers of seconds become large ones.
fn keep_expiries_away(words: &mut Args) {
    let name = words[0].to_ascii_lowercase();
    let says = |word: &str| words[1..].iter().any(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    let expires = match &name[..] {
        b"expire" | b"pexpire" | b"expireat" | b"pexpireat" | b"setex" | b"psetex" => true,
        b"set" | b"getex" => says("ex") || says("px"),
        _ => false,
    };
    if !expires {
        return;
    }
    for word in &mut words[1..] {
        let number = std::str::from_utf8(word).ok().and_then(|w| w.parse::<i64>().ok());
        if number.is_some_and(|n| (1..100_000_000).contains(&n)) {
            *word = b"100000000".to_vec();
        }
    }
}

/// An iteration that begins in the middle shows what the server likes.
fn start_scans_at_zero(words: &mut Args) {
    let at = match &words[0][..] {
        b"scan" => 1,
        b"hscan" | b"sscan" | b"zscan" => 2,
        _ => return,
    };
    if let Some(cursor) = words.get_mut(at)
        && String::from_utf8_lossy(cursor).trim().parse::<i128>().is_ok()
    {
        *cursor = b"0".to_vec();
    }
}

/// Redis has sixteen databases, the gateway has one.
fn stay_in_database_zero(words: &mut Args) {
    if words[0] == b"copy" {
        let numbers = words[1..].iter_mut().filter(|w| w.iter().all(u8::is_ascii_digit));
        numbers.for_each(|word| *word = b"0".to_vec());
    }
}

/// Asked for 2^63 random members, Redis sends them.
fn keep_choices_short(words: &mut Args) {
    let name = words[0].to_ascii_lowercase();
    if matches!(&name[..], b"srandmember" | b"hrandfield" | b"zrandmember") {
        for word in &mut words[1..] {
            if word == b"-9223372036854775807" {
                *word = b"-20".to_vec();
            }
        }
    }
}

/// What is inside the bracket that `text` begins with, and what follows it.
fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&text[1..at], &text[at + 1..]);
        }
    }
    panic!("unbalanced template {text}")
}

/// The alternatives of a choice.
fn alternatives(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            b'|' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[from..]);
    found
}

/// How many commands of each name a run had.
pub type Coverage = BTreeMap<String, usize>;

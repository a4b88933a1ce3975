//! Random commands from templates.
//!
//! A template is words with blanks between them. A word in lower case stands for something (see
//! [`Generator::fill`]) if it is one letter, and for itself otherwise. `a|b` is one of them,
//! `a~b` is both, `?a` is there or not, `*a` is there one to four times.

pub struct Generator {
    state: u64,
    /// Whether collections are to become large.
    pub large: bool,
    /// Whether lexical ranges are asked for where scores differ, too. Their results are
    /// unspecified, but the same at every replica.
    pub mixes: bool,
}

impl Generator {
    pub fn new(seed: u64, large: bool) -> Generator {
        Generator {
            large,
            mixes: false,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678,
        }
    }

    /// The next command: mostly one that makes sense.
    pub fn command(&mut self) -> Vec<Vec<u8>> {
        let all = TEMPLATES.len() as u64;
        let mut template = TEMPLATES[self.below(all) as usize];
        let shrinks = SHRINKING.iter().any(|name| template.starts_with(name));
        if self.large && shrinks && self.below(30) > 0 {
            template = GROWING[self.below(GROWING.len() as u64) as usize];
        }
        if self.mixes && self.below(5) == 0 {
            template = MIXING[self.below(MIXING.len() as u64) as usize];
        }
        let mut args = Vec::new();
        for word in template.split(' ') {
            self.expand(word, &mut args);
        }
        // Scores of those sets stay alike: what lexical ranges are without that is unspecified.
        if self.below(20) == 0 && !template.starts_with("ZADD q") {
            self.spoil(&mut args);
        }
        if self.below(4) == 0 {
            args[0].make_ascii_lowercase();
        }
        args
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    fn expand(&mut self, word: &str, args: &mut Vec<Vec<u8>>) {
        if let Some(optional) = word.strip_prefix('?') {
            if self.below(2) == 0 {
                self.expand(optional, args);
            }
        } else if let Some(repeated) = word.strip_prefix('*') {
            for _ in 0..=self.below(if self.large { 60 } else { 4 }) {
                self.expand(repeated, args);
            }
        } else if word.contains('|') {
            let choices: Vec<&str> = word.split('|').collect();
            let choice = self.pick(&choices);
            self.expand(choice, args);
        } else {
            for part in word.split('~') {
                let arg = self.fill(part);
                args.push(arg);
            }
        }
    }

    fn fill(&mut self, word: &str) -> Vec<u8> {
        match word {
            // A key; mostly of the type that its letter says, so that commands meet their type.
            "k" | "h" | "l" | "s" | "z" => {
                let kind =
                    if self.below(25) == 0 { self.pick(&["k", "h", "l", "s", "z"]) } else { word };
                format!("{kind}{}", self.below(if self.large { 2 } else { 6 })).into_bytes()
            }
            "a" => {
                let kind = self.pick(&["k", "h", "l", "s", "z"]);
                format!("{kind}{}", self.below(if self.large { 2 } else { 6 })).into_bytes()
            }
            // For lexical ranges: sorted sets whose scores are all the same.
            "q" => format!("q{}", self.below(4)).into_bytes(),
            // How many random elements; what is far below zero would take for ever.
            "c" => {
                self.pick(&["-20", "-3", "0", "1", "5", "9223372036854775807", "x", "01"]).into()
            }
            "f" => self.member(),
            "v" => self.value(),
            // Around the middle of a large collection.
            "i" if self.large && self.below(2) == 0 => {
                (self.below(4000) as i64 - 2000).to_string().into_bytes()
            }
            "i" => self.integer(),
            "n" => (self.below(6) as i64 - 1).to_string().into_bytes(),
            "b" => self.below(300).to_string().into_bytes(),
            "d" => self.decimal(),
            "t" => (1000 + self.below(1_000_000)).to_string().into_bytes(),
            // Times to live that are none, or end before the next command.
            "u" => self.pick(&NEVER_SHORT).into(),
            "m" => (10_000_000 + self.below(1_000_000_000)).to_string().into_bytes(),
            "e" => (4_000_000_000 + self.below(1000) * 1_000_000).to_string().into_bytes(),
            "x" => self.pick(&["-", "+", "[a", "(a", "[f3", "(f3", "[f7", "(f7", "a"]).into(),
            "r" => self.bound(),
            "p" => self
                .pick(&["*", "k*", "?1", "[hl]*", "f[0-5]", "*1*", "[^k]?", "\\k*", "f1"])
                .into(),
            "y" => self.pick(&["i8", "u8", "i5", "u16", "i64", "u63", "u1", "u64", "i0"]).into(),
            "o" => self.pick(&["0", "7", "#1", "#3", "100", "33", "-1", "x"]).into(),
            other => other.as_bytes().to_vec(),
        }
    }

    fn member(&mut self) -> Vec<u8> {
        format!("f{}", self.below(if self.large { 5000 } else { 12 })).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => self.integer(),
            1 => self.decimal(),
            2 => vec![],
            3 => (0..self.below(30)).map(|_| self.below(256) as u8).collect(),
            4 => vec![b'x'; self.below(100) as usize],
            _ => self.member(),
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        let odd = [
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "01",
            "+1",
            " 1",
            "1 ",
            "",
            "abc",
            "1.5",
            "-0",
            "1e3",
        ];
        match self.below(20) {
            0 => self.pick(&odd).into(),
            1 => (self.below(1 << 62) as i64 - (1 << 61)).to_string().into_bytes(),
            _ => (self.below(40) as i64 - 10).to_string().into_bytes(),
        }
    }

    fn decimal(&mut self) -> Vec<u8> {
        let odd = [
            "inf",
            "-inf",
            "+inf",
            "nan",
            "1e3",
            "-1.5e-5",
            "0x10",
            " 1",
            "1 ",
            "",
            "abc",
            "1e400",
            "3.0",
            "-0",
            "1e17",
            "5e-324",
            "infinity",
            ".5",
            "5.",
            "1e-20",
            "123456789012345678",
        ];
        match self.below(12) {
            0 => self.pick(&odd).into(),
            1 => format!("{}.{}", self.below(1 << 40), self.below(1 << 40)).into_bytes(),
            2..=5 => format!("{}.{}", self.below(40) as i64 - 10, self.below(100)).into_bytes(),
            _ => (self.below(40) as i64 - 10).to_string().into_bytes(),
        }
    }

    fn bound(&mut self) -> Vec<u8> {
        let mut bound = if self.below(4) == 0 {
            self.pick(&["-inf", "+inf", "inf", "(inf", "(-inf", "x", "(", ""]).into()
        } else {
            self.decimal()
        };
        if self.below(4) == 0 {
            bound.insert(0, b'(');
        }
        bound
    }

    /// Makes a command wrong, perhaps.
    fn spoil(&mut self, args: &mut Vec<Vec<u8>>) {
        let at = self.below(args.len() as u64) as usize;
        match self.below(5) {
            0 if args.len() > 1 => drop(args.remove(at)),
            1 => args.push(self.value()),
            2 => {
                let copy = args[at].clone();
                args.insert(at, copy);
            }
            3 if at > 0 => args[at] = self.value(),
            _ => {
                let other = 1 + self.below(args.len() as u64) as usize;
                if other < args.len() && at > 0 {
                    args.swap(at, other);
                }
            }
        }
        let timed = |arg: &Vec<u8>| {
            let word = arg.to_ascii_uppercase();
            word.ends_with(b"EX") || word.ends_with(b"PX") || word.ends_with(b"EXPIRE")
        };
        if args.iter().any(timed) {
            for arg in &mut args[1..] {
                let number = String::from_utf8_lossy(arg).parse::<i64>();
                if number.is_ok_and(|number| (1..10_000).contains(&number)) {
                    *arg = b"0".to_vec();
                }
            }
        }
        // For so many random elements Redis would take all memory there is.
        let random = args[0].to_ascii_uppercase();
        if random.windows(4).any(|part| part == b"RAND") {
            for arg in &mut args[1..] {
                if arg.len() > 4 && arg.starts_with(b"-") {
                    *arg = b"-5".to_vec();
                }
            }
        }
    }
}

/// What makes collections small again.
const SHRINKING: &[&str] = &[
    "DEL",
    "UNLINK",
    "RENAME",
    "COPY",
    "LTRIM l i",
    "SINTERSTORE",
    "SDIFFSTORE",
    "SUNIONSTORE",
    "ZRANGESTORE",
    "ZREMRANGE",
    "ZUNIONSTORE",
    "ZINTERSTORE",
    "ZDIFFSTORE",
    "MSET ",
    "GETDEL",
    "SET a",
    "EXPIRE",
    "PEXPIRE",
    "SPOP s c",
    "LREM",
    "LPOP l i",
    "RPOP l i",
    "ZPOPMIN z i",
];

/// Lexical ranges of sets with different scores.
const MIXING: &[&str] = &[
    "ZADD z *d~f",
    "ZADD z *b~f",
    "ZLEXCOUNT z x x",
    "ZRANGEBYLEX z x x LIMIT n 5",
    "ZREMRANGEBYLEX z [f3 (f300",
];

/// What makes them large.
const GROWING: &[&str] =
    &["RPUSH l *v", "LPUSH l *v", "HSET h *f~v", "SADD s *f", "ZADD z *d~f", "ZADD q *0~f"];

/// No number here is a short time to live: whether a key is gone a few milliseconds later would
/// be a race.
const NEVER_SHORT: [&str; 9] = [
    "0",
    "-1",
    "-100",
    "abc",
    "1.5",
    "",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
];

const TEMPLATES: &[&str] = &[
    "APPEND k v",
    "DECR k",
    "DECRBY k i",
    "GET k",
    "GETDEL k",
    "GETEX k",
    "GETEX k ?EX~t|PX~m|EXAT~e|PERSIST|EX~u",
    "GETEX k EXAT|PXAT b",
    "GETRANGE k i i",
    "GETSET k v",
    "INCR k",
    "INCRBY k i",
    "INCRBYFLOAT k d",
    "INCRBYFLOAT k d",
    "MGET *a",
    "MSET *k~v",
    "MSETNX *k~v",
    "PSETEX k m v",
    "PSETEX k u v",
    "SET k v",
    "SET k v",
    "SET k v",
    "SET k d",
    "SET k i",
    "SET k v ?NX ?GET ?EX~t",
    "SET k v ?XX ?GET ?KEEPTTL",
    "SET a v ?NX|XX|GET",
    "SET k v EX|PX|EXAT|PXAT u",
    "SET k v PX~m|EXAT~e ?GET ?XX",
    "SET k v *NX|XX|GET|KEEPTTL|EX~t|v",
    "SETEX k t v",
    "SETNX k v",
    "SETRANGE k b v",
    "SETRANGE k i v",
    "STRLEN k",
    "SUBSTR k i i",
    "SETBIT k b 0|1",
    "SETBIT k i i",
    "GETBIT k b",
    "GETBIT k i",
    "BITCOUNT k ?n~n",
    "BITCOUNT k i i ?BIT|BYTE|v",
    "BITPOS k 0|1",
    "BITPOS k 0|1 i",
    "BITPOS k 0|1 i i ?BIT|BYTE|v",
    "BITPOS k i ?i ?i",
    "BITOP AND|OR|XOR k *k",
    "BITOP NOT k *k",
    "BITOP AND|v k *a",
    "BITFIELD k *GET~y~o|SET~y~o~i|INCRBY~y~o~i|OVERFLOW~WRAP|OVERFLOW~SAT|OVERFLOW~FAIL",
    "BITFIELD k ?OVERFLOW~SAT|OVERFLOW~FAIL *INCRBY~y~o~i",
    "BITFIELD_RO k *GET~y~o",
    "BITFIELD_RO a *GET~y~o|v",
    "DEL *a",
    "UNLINK a",
    "EXISTS *a",
    "TYPE a",
    "TOUCH *a",
    "EXPIRE a t ?NX|XX|GT|LT",
    "EXPIRE a u|t *NX|XX|GT|LT|v",
    "PEXPIRE a m ?NX|XX|GT|LT",
    "EXPIREAT a e ?NX|XX|GT|LT",
    "EXPIREAT a i",
    "PEXPIREAT a i",
    "PEXPIRE a u",
    "TTL a",
    "PTTL a",
    "EXPIRETIME a",
    "PEXPIRETIME a",
    "PERSIST a",
    "RENAME k k",
    "RENAMENX k k",
    "RENAME h h",
    "RENAME a a",
    "RENAMENX a a",
    "COPY a a ?REPLACE",
    "COPY a a ?DB~i ?REPLACE",
    "KEYS p",
    "SCAN 0 COUNT 100000 ?MATCH~p ?TYPE~string|TYPE~hash|TYPE~v",
    "SCAN i|v ?COUNT~i ?MATCH",
    "RANDOMKEY",
    "DBSIZE",
    "TIME",
    "FLUSHALL v",
    "NOPE *v",
    "v *v",
    "HSET h *f~v",
    "HSET h *f~v",
    "HSET h f d",
    "HSETNX h f v",
    "HGET h f",
    "HMGET h *f",
    "HMSET h *f~v",
    "HGETALL h",
    "HDEL h *f",
    "HLEN h",
    "HSTRLEN h f",
    "HEXISTS h f",
    "HKEYS h",
    "HVALS h",
    "HINCRBY h f i",
    "HINCRBYFLOAT h f d",
    "HRANDFIELD h",
    "HRANDFIELD h n ?WITHVALUES",
    "HRANDFIELD h c ?v",
    "HSCAN h 0 COUNT 100000 ?MATCH~p",
    "HSCAN h i|v ?COUNT~i ?v",
    "LPUSH l *v",
    "RPUSH l *v",
    "LPUSHX l *v",
    "RPUSHX l *v",
    "LPOP l ?n",
    "RPOP l ?n",
    "LPOP l i",
    "LLEN l",
    "LRANGE l i i",
    "LINDEX l i",
    "LSET l i v",
    "LINSERT l BEFORE|AFTER v v",
    "LINSERT l v v v",
    "LREM l i v",
    "LTRIM l i i",
    "LTRIM l n -1",
    "RPOPLPUSH l l",
    "LMOVE l l LEFT|RIGHT LEFT|RIGHT",
    "LMOVE l l LEFT|v RIGHT|v",
    "LMPOP n *l LEFT|RIGHT ?COUNT~n",
    "LMPOP 1 l LEFT|RIGHT ?COUNT~i ?v",
    "LMPOP 2 l l LEFT|RIGHT",
    "LPOS l v ?RANK~i ?COUNT~n ?MAXLEN~n",
    "LPOS l v *RANK~i|COUNT~i|MAXLEN~i|v",
    "SADD s *f",
    "SADD s *v",
    "SREM s *f",
    "SCARD s",
    "SISMEMBER s f",
    "SMISMEMBER s *f",
    "SMEMBERS s",
    "SMOVE s s f",
    "SPOP s",
    "SPOP s n",
    "SPOP s c",
    "SRANDMEMBER s",
    "SRANDMEMBER s n",
    "SRANDMEMBER s c",
    "SINTER *s",
    "SUNION *s",
    "SDIFF *s",
    "SINTERSTORE s *s",
    "SUNIONSTORE s *s",
    "SDIFFSTORE s *s",
    "SINTERCARD n *s ?LIMIT~i",
    "SINTERCARD 1 s ?LIMIT~n",
    "SINTERCARD 2 s s ?LIMIT~n ?v",
    "SSCAN s 0 COUNT 100000 ?MATCH~p",
    "SSCAN s i|v ?COUNT~i ?v",
    "ZADD z *d~f",
    "ZADD z *d~f",
    "ZADD z ?NX|XX ?GT|LT ?CH ?INCR *d~f",
    "ZADD z *NX|XX|GT|LT|CH|INCR d f",
    "ZADD z *b~v",
    "ZREM z *f",
    "ZCARD z",
    "ZCOUNT z r r",
    "ZADD q *0~f",
    "ZADD q *0~v",
    "ZREM q *f",
    "ZRANGE q 0 -1 WITHSCORES",
    "ZLEXCOUNT q x x",
    "ZSCORE z f",
    "ZMSCORE z *f",
    "ZINCRBY z d f",
    "ZRANK z f",
    "ZREVRANK z f",
    "ZRANGE z i i ?WITHSCORES",
    "ZREVRANGE z i i ?WITHSCORES",
    "ZRANGE z r r BYSCORE ?REV ?LIMIT~n~n ?WITHSCORES",
    "ZRANGE q x x BYLEX ?REV ?LIMIT~n~n ?WITHSCORES",
    "ZRANGE z i i ?REV ?LIMIT~n~n *WITHSCORES|v|BYSCORE",
    "ZRANGEBYSCORE z r r ?WITHSCORES ?LIMIT~n~n",
    "ZREVRANGEBYSCORE z r r ?WITHSCORES ?LIMIT~n~n",
    "ZRANGEBYLEX q x x ?LIMIT~n~n",
    "ZREVRANGEBYLEX q x x ?LIMIT~n~n",
    "ZRANGESTORE z z r r BYSCORE ?REV ?LIMIT~n~n",
    "ZRANGESTORE z z i i ?REV ?WITHSCORES",
    "ZRANGESTORE q q x x BYLEX ?LIMIT~n~n",
    "ZREMRANGEBYRANK z i i",
    "ZREMRANGEBYSCORE z r r",
    "ZREMRANGEBYLEX q x x",
    "ZPOPMIN z ?n",
    "ZPOPMAX z ?n",
    "ZPOPMIN z i",
    "ZMPOP n *z MIN|MAX ?COUNT~n",
    "ZMPOP 1 z MIN|MAX ?COUNT~i ?v",
    "ZMPOP 2 z z MIN|MAX",
    "ZUNION 2 z z|s ?WEIGHTS~d~d ?AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX ?WITHSCORES",
    "ZINTER 2 z z|s ?WEIGHTS~d~d ?AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX ?WITHSCORES",
    "ZDIFF 2 z z|s ?WITHSCORES",
    "ZDIFF n *z ?WITHSCORES",
    "ZUNION n *z|s ?WITHSCORES",
    "ZINTER n *z ?v",
    "ZUNIONSTORE z 2 z z|s ?WEIGHTS~d~d ?AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX",
    "ZINTERSTORE z 2 z z|s ?WEIGHTS~d~d ?AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX",
    "ZUNIONSTORE z n *a ?WEIGHTS~d ?AGGREGATE~v",
    "ZDIFFSTORE z 2 z z|s",
    "ZDIFFSTORE z n *a",
    "ZINTERCARD n *z ?LIMIT~i",
    "ZINTERCARD 2 z z ?LIMIT~n",
    "ZRANDMEMBER z",
    "ZRANDMEMBER z n ?WITHSCORES",
    "ZRANDMEMBER z c ?v",
    "ZSCAN z 0 COUNT 100000 ?MATCH~p",
    "ZSCAN z i|v ?COUNT~i ?v",
];

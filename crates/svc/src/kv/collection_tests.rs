//! Tests of the commands on collections, one reply after the other, with replies that were taken
//! from redis-server 7.0.15. Where both protocols give the same reply it stands once.

use super::KvService;
use super::reply::Protocol;
use crate::testing::Runner;

/// A command, its reply in RESP2, and its reply in RESP3 if that is another.
type Case = (&'static str, &'static str, Option<&'static str>);

/// Runs commands in both protocols and compares replies, written with blanks for line breaks.
fn check(cases: &[Case]) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut runner = Runner::new(KvService::new());
        runner.protocol = protocol;
        for (command, resp2, resp3) in cases {
            let wanted = if protocol == Protocol::Resp3 { resp3.unwrap_or(resp2) } else { resp2 };
            assert_eq!(runner.command(command), wanted, "{command} in {protocol:?}");
        }
    }
}

#[test]
fn hashes() {
    check(HASHES);
}

#[test]
fn lists() {
    check(LISTS);
}

#[test]
fn sets() {
    check(SETS);
}

#[test]
fn sorted_sets() {
    check(SORTED_SETS);
}

const HASHES: &[Case] = &[
    ("HSET h f 1", ":1", None),
    ("HSET h f 2 g x", ":1", None),
    ("HSET h f", "-ERR wrong number of arguments for 'hset' command", None),
    ("HSETNX h f 9", ":0", None),
    ("HMGET h f no", "*2 $1 2 $-1", Some("*2 $1 2 _")),
    ("HGET h no", "$-1", Some("_")),
    ("HGETALL no", "*0", Some("%0")),
    ("HSTRLEN h g", ":1", None),
    ("HINCRBY h f 5", ":7", None),
    ("HINCRBY h g 1", "-ERR hash value is not an integer", None),
    ("HINCRBY h f 9223372036854775807", "-ERR increment or decrement would overflow", None),
    ("HINCRBYFLOAT h f 0.1", "$3 7.1", None),
    ("HINCRBYFLOAT h f inf", "-ERR value is NaN or Infinity", None),
    ("HINCRBYFLOAT h g 1", "-ERR hash value is not a float", None),
    ("HRANDFIELD no", "$-1", Some("_")),
    ("HRANDFIELD no 2", "*0", None),
    ("HRANDFIELD h 0 WITHVALUES", "*0", None),
    ("HRANDFIELD h 1 X", "-ERR syntax error", None),
    ("HDEL h g no", ":1", None),
    ("HGETALL h", "*2 $1 f $3 7.1", Some("%1 $1 f $3 7.1")),
    (
        "HRANDFIELD h -2 WITHVALUES",
        "*4 $1 f $3 7.1 $1 f $3 7.1",
        Some("*2 *2 $1 f $3 7.1 *2 $1 f $3 7.1"),
    ),
    ("HSCAN h 0", "*2 $1 0 *2 $1 f $3 7.1", None),
    ("HSCAN no 0 X", "*2 $1 0 *0", None),
    ("HSCAN h x", "-ERR invalid cursor", None),
    ("HDEL h f", ":1", None),
    ("EXISTS h", ":0", None),
    ("SET s x", "+OK", None),
    ("HGET s f", "-WRONGTYPE Operation against a key holding the wrong kind of value", None),
    ("HSET s f v", "-WRONGTYPE Operation against a key holding the wrong kind of value", None),
];

const LISTS: &[Case] = &[
    ("RPUSH l a b c b a", ":5", None),
    ("LPUSH l z", ":6", None),
    ("LPUSHX no a", ":0", None),
    ("LRANGE l 0 -1", "*6 $1 z $1 a $1 b $1 c $1 b $1 a", None),
    ("LRANGE l -2 9", "*2 $1 b $1 a", None),
    ("LRANGE l 3 1", "*0", None),
    ("LINDEX l -1", "$1 a", None),
    ("LINDEX l 9", "$-1", Some("_")),
    ("LSET l 1 A", "+OK", None),
    ("LSET l 9 A", "-ERR index out of range", None),
    ("LSET no 0 A", "-ERR no such key", None),
    ("LINSERT l BEFORE b x", ":7", None),
    ("LINSERT l AFTER no x", ":-1", None),
    ("LINSERT l at b x", "-ERR syntax error", None),
    ("LPOS l b", ":3", None),
    ("LPOS l b RANK -1", ":5", None),
    ("LPOS l b COUNT 0", "*2 :3 :5", None),
    ("LPOS l no", "$-1", Some("_")),
    (
        "LPOS l b RANK 0",
        "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
         or use negative to start from the end of the list",
        None,
    ),
    ("LPOS l b COUNT -1", "-ERR COUNT can't be negative", None),
    ("LREM l -1 b", ":1", None),
    ("LTRIM l 1 3", "+OK", None),
    ("LRANGE l 0 -1", "*3 $1 A $1 x $1 b", None),
    ("LMOVE l m LEFT RIGHT", "$1 A", None),
    ("RPOPLPUSH l l", "$1 b", None),
    ("RPOPLPUSH no l", "$-1", Some("_")),
    ("LPOP l 0", "*0", None),
    ("LPOP l 9", "*2 $1 b $1 x", None),
    ("LPOP no", "$-1", Some("_")),
    ("LPOP no 1", "*-1", Some("_")),
    ("LPOP m x", "-ERR value is out of range, must be positive", None),
    ("LMPOP 2 l m RIGHT COUNT 5", "*2 $1 m *1 $1 A", None),
    ("LMPOP 1 l LEFT", "*-1", Some("_")),
    ("LMPOP 0 l LEFT", "-ERR numkeys should be greater than 0", None),
    ("EXISTS l m", ":0", None),
];

const SETS: &[Case] = &[
    ("SADD s 1", ":1", None),
    ("SADD s 1 2", ":1", None),
    ("SISMEMBER s 2", ":1", None),
    ("SMISMEMBER s 1 9", "*2 :1 :0", None),
    ("SADD t 2 3", ":2", None),
    ("SINTER s t", "*1 $1 2", Some("~1 $1 2")),
    ("SDIFF s t", "*1 $1 1", Some("~1 $1 1")),
    ("SINTERSTORE d s t", ":1", None),
    ("SMEMBERS d", "*1 $1 2", Some("~1 $1 2")),
    ("SINTERSTORE d s no", ":0", None),
    ("EXISTS d", ":0", None),
    ("SUNIONSTORE d s t", ":3", None),
    ("SCARD d", ":3", None),
    ("SINTERCARD 2 s t LIMIT 1", ":1", None),
    ("SINTERCARD 0 s", "-ERR numkeys should be greater than 0", None),
    ("SINTERCARD 3 s", "-ERR Number of keys can't be greater than number of args", None),
    ("SMOVE s t 1", ":1", None),
    ("SMOVE s t 9", ":0", None),
    ("SREM s 2", ":1", None),
    ("EXISTS s", ":0", None),
    ("SMEMBERS s", "*0", Some("~0")),
    ("SPOP s", "$-1", Some("_")),
    ("SPOP s 1", "*0", Some("~0")),
    ("SPOP d -1", "-ERR value is out of range, must be positive", None),
    ("SPOP d 9 9", "-ERR syntax error", None),
    ("SRANDMEMBER s 1", "*0", None),
    ("SRANDMEMBER s", "$-1", Some("_")),
    ("SADD o 1", ":1", None),
    ("SRANDMEMBER o -3", "*3 $1 1 $1 1 $1 1", None),
    ("SRANDMEMBER o -65537", "-ERR value is out of range", None),
    ("SRANDMEMBER o 65537", "*1 $1 1", None),
    ("SPOP o 5", "*1 $1 1", Some("~1 $1 1")),
    ("SSCAN o 0", "*2 $1 0 *0", None),
    ("SET x 1", "+OK", None),
    ("SUNION o x", "-WRONGTYPE Operation against a key holding the wrong kind of value", None),
    ("SMOVE x o 1", "-WRONGTYPE Operation against a key holding the wrong kind of value", None),
];

const SORTED_SETS: &[Case] = &[
    ("ZADD z 1 a 2.5 b", ":2", None),
    ("ZADD z XX CH 3 b 4 c", ":1", None),
    ("ZADD z GT 1 b", ":0", None),
    ("ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible", None),
    ("ZADD z INCR 0.1 a", "$18 1.1000000000000001", Some(",1.1000000000000001")),
    ("ZADD z NX INCR 1 a", "$-1", Some("_")),
    ("ZADD z x a", "-ERR value is not a valid float", None),
    ("ZADD z inf i", ":1", None),
    ("ZINCRBY z -inf i", "-ERR resulting score is not a number (NaN)", None),
    ("ZSCORE z i", "$3 inf", Some(",inf")),
    ("ZMSCORE z b no", "*2 $1 3 $-1", Some("*2 ,3 _")),
    ("ZRANK z b", ":1", None),
    ("ZREVRANK z b", ":1", None),
    (
        "ZRANGE z 0 -1 WITHSCORES",
        "*6 $1 a $18 1.1000000000000001 $1 b $1 3 $1 i $3 inf",
        Some("*3 *2 $1 a ,1.1000000000000001 *2 $1 b ,3 *2 $1 i ,inf"),
    ),
    ("ZRANGE z (1.1 +inf BYSCORE REV", "*0", None),
    ("ZRANGE z +inf (1 BYSCORE REV LIMIT 1 1 WITHSCORES", "*2 $1 b $1 3", Some("*1 *2 $1 b ,3")),
    (
        "ZRANGE z 0 1 LIMIT 0 1",
        "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        None,
    ),
    ("ZCOUNT z (1.1 3", ":1", None),
    ("ZCOUNT z x 3", "-ERR min or max is not a float", None),
    ("ZREVRANGE z 0 0", "*1 $1 i", None),
    ("ZRANGEBYSCORE z -inf 2", "*1 $1 a", None),
    ("ZADD l 0 a 0 b 0 c", ":3", None),
    ("ZRANGEBYLEX l [b +", "*2 $1 b $1 c", None),
    ("ZREVRANGEBYLEX l (c -", "*2 $1 b $1 a", None),
    ("ZLEXCOUNT l - (c", ":2", None),
    ("ZLEXCOUNT l a b", "-ERR min or max not valid string range item", None),
    ("ZRANGESTORE r l [b + BYLEX", ":2", None),
    ("ZRANGE r 0 -1", "*2 $1 b $1 c", None),
    ("ZREMRANGEBYLEX r [b [b", ":1", None),
    ("ZREMRANGEBYRANK r 0 0", ":1", None),
    ("EXISTS r", ":0", None),
    (
        "ZUNION 2 z l WEIGHTS 2 1 AGGREGATE MAX WITHSCORES",
        "*8 $1 c $1 0 $1 a $18 2.2000000000000002 $1 b $1 6 $1 i $3 inf",
        Some("*4 *2 $1 c ,0 *2 $1 a ,2.2000000000000002 *2 $1 b ,6 *2 $1 i ,inf"),
    ),
    (
        "ZINTER 2 z l WITHSCORES",
        "*4 $1 a $18 1.1000000000000001 $1 b $1 3",
        Some("*2 *2 $1 a ,1.1000000000000001 *2 $1 b ,3"),
    ),
    ("ZDIFF 2 l z", "*1 $1 c", None),
    ("ZUNIONSTORE u 2 z l", ":4", None),
    ("ZINTERSTORE u 2 z no", ":0", None),
    ("EXISTS u", ":0", None),
    ("ZINTERCARD 2 z l LIMIT 1", ":1", None),
    ("ZUNION 0 z", "-ERR at least 1 input key is needed for 'zunion' command", None),
    ("ZUNION 1 z WEIGHTS x", "-ERR weight value is not a float", None),
    ("SADD s a", ":1", None),
    (
        "ZINTER 2 z s WITHSCORES",
        "*2 $1 a $18 2.1000000000000001",
        Some("*1 *2 $1 a ,2.1000000000000001"),
    ),
    ("ZPOPMIN z", "*2 $1 a $18 1.1000000000000001", Some("*2 $1 a ,1.1000000000000001")),
    ("ZPOPMAX z 1", "*2 $1 i $3 inf", Some("*1 *2 $1 i ,inf")),
    ("ZPOPMIN z 0", "*0", None),
    ("ZPOPMIN no", "*0", None),
    ("ZRANDMEMBER z -65537", "-ERR value is out of range", None),
    ("ZRANDMEMBER z -65537 WITHSCORES", "-ERR value is out of range", None),
    ("ZRANDMEMBER z -2 WITHSCORES", "*4 $1 b $1 3 $1 b $1 3", Some("*2 *2 $1 b ,3 *2 $1 b ,3")),
    ("ZMPOP 2 no z MAX COUNT 3", "*2 $1 z *1 *2 $1 b $1 3", Some("*2 $1 z *1 *2 $1 b ,3")),
    ("ZMPOP 1 no MIN", "*-1", Some("_")),
    ("ZREM l a no", ":1", None),
    ("ZSCAN l 0 MATCH c", "*2 $1 0 *2 $1 c $1 0", None),
    ("ZREMRANGEBYSCORE l 0 0", ":2", None),
    ("EXISTS l z", ":0", None),
];

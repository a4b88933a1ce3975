//! Commands about when keys expire. Time is agreed time, at every replica the same.

use super::call::{Call, Fail, Outcome};
use super::table::Keys;
use super::table::Run::Service;
use super::table::commands;
use super::table::flags::{FAST, READONLY, WRITE};

commands! { Generic:
    "expire" -3, WRITE | FAST, Keys::FIRST, Service(|c| expire(c, 1000, false, "expire")),
        "Sets the time to live of a key in seconds";
    "expireat" -3, WRITE | FAST, Keys::FIRST, Service(|c| expire(c, 1000, true, "expireat")),
        "Sets the time at which a key expires, in seconds since the Unix epoch";
    "expiretime" 2, READONLY | FAST, Keys::FIRST, Service(|c| when(c, true, true)),
        "Returns the time at which a key expires, in seconds since the Unix epoch";
    "pexpire" -3, WRITE | FAST, Keys::FIRST, Service(|c| expire(c, 1, false, "pexpire")),
        "Sets the time to live of a key in milliseconds";
    "pexpireat" -3, WRITE | FAST, Keys::FIRST, Service(|c| expire(c, 1, true, "pexpireat")),
        "Sets the time at which a key expires, in milliseconds since the Unix epoch";
    "pexpiretime" 2, READONLY | FAST, Keys::FIRST, Service(|c| when(c, false, true)),
        "Returns the time at which a key expires, in milliseconds since the Unix epoch";
    "pttl" 2, READONLY | FAST, Keys::FIRST, Service(|c| when(c, false, false)),
        "Returns the time to live of a key in milliseconds";
    "ttl" 2, READONLY | FAST, Keys::FIRST, Service(|c| when(c, true, false)),
        "Returns the time to live of a key in seconds";
}

/// Under which conditions an expiry is set.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    /// Reads the options; an unsupported one is the error reply, and nothing is returned.
    fn parse(c: &mut Call<'_, '_>) -> Result<Option<Conditions>, Fail> {
        let mut conditions = Conditions::default();
        for option in &c.args[3..] {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => conditions.nx = true,
                b"XX" => conditions.xx = true,
                b"GT" => conditions.gt = true,
                b"LT" => conditions.lt = true,
                _ => {
                    let shown = option.split(|byte| *byte == 0).next().unwrap_or_default();
                    let mut text = [b"ERR Unsupported option ", shown].concat();
                    // Redis trims line breaks here, and only here.
                    while text.pop_if(|byte| matches!(byte, b'\r' | b'\n')).is_some() {}
                    c.reply.error(&text);
                    return Ok(None);
                }
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Fail::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(Fail::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(Some(conditions))
    }

    /// Whether the expiry `old` may become `new`. No expiry is later than any.
    fn allow(self, old: Option<u64>, new: i64) -> bool {
        let old = old.map(|old| i64::try_from(old).unwrap_or(i64::MAX));
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire(c: &mut Call<'_, '_>, factor: i64, absolute: bool, command: &str) -> Outcome {
    let key = c.args[1];
    let Some(conditions) = Conditions::parse(c)? else { return Ok(()) };
    let base = if absolute { 0 } else { c.now_ms as i64 };
    let when = c.int(2)?.checked_mul(factor).and_then(|ms| ms.checked_add(base));
    let invalid = || Fail(format!("ERR invalid expire time in '{command}' command").into());
    let when = when.ok_or_else(invalid)?;
    let allowed = c.db.entry(key).is_some_and(|e| conditions.allow(e.expires_at_ms(), when));
    if !allowed {
        c.reply.integer(0);
        return Ok(());
    }
    match u64::try_from(when) {
        Ok(when) if when > c.now_ms => {
            c.db.set_expiry(c.ctx, key, Some(when));
        }
        // Its time has come already.
        _ => {
            c.db.remove(c.ctx, key);
        }
    }
    c.reply.integer(1);
    Ok(())
}

fn when(c: &mut Call<'_, '_>, seconds: bool, absolute: bool) -> Outcome {
    let answer = match c.db.entry(c.args[1]).map(|entry| entry.expires_at_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(when)) => {
            let ms = if absolute { when } else { when.saturating_sub(c.now_ms) };
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            // Rounded to the nearest; Redis's own sum overflows for the last half second.
            if seconds { ms.saturating_add(500) / 1000 } else { ms }
        }
    };
    c.reply.integer(answer);
    Ok(())
}

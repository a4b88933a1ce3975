//! Glob patterns as KEYS and the SCAN family take them: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.
//!
//! Time is bounded by the product of the two lengths, and nothing recurses: patterns come from
//! clients.

/// Whether all of `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut compared = 0;
    matches_within(pattern, text, usize::MAX, &mut compared) == Some(true)
}

/// Whether all of `text` matches `pattern`, if hardly more than `most` comparisons of characters
/// tell. Adds to `compared` how many it took.
pub(super) fn matches_within(
    pattern: &[u8],
    text: &[u8],
    most: usize,
    compared: &mut usize,
) -> Option<bool> {
    if text.is_empty() {
        // Redis does not even let `*` match nothing at all.
        return Some(pattern.is_empty());
    }
    let before = *compared;
    let (mut p, mut t) = (0, 0);
    // The last star: the pattern behind it, and the text it has not swallowed yet. Earlier
    // stars need not be tried again: what they could swallow more, the last one can.
    let mut star = None;
    while t < text.len() {
        *compared += 1;
        if *compared - before > most {
            return None;
        }
        if pattern.get(p) == Some(&b'*') {
            p = behind_stars(pattern, p, compared);
            if p == pattern.len() {
                return Some(true);
            }
            star = Some((p, t));
        } else if let Some(next) = match_one(pattern, p, text[t], compared) {
            (p, t) = (next, t + 1);
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            (p, t) = (behind, from + 1);
        } else {
            return Some(false);
        }
    }
    Some(behind_stars(pattern, p, compared) == pattern.len())
}

/// Where the run of stars at `p` ends, of which there may be millions.
fn behind_stars(pattern: &[u8], p: usize, compared: &mut usize) -> usize {
    let stars = pattern[p..].iter().take_while(|b| **b == b'*').count();
    // The first one is counted with its turn.
    *compared += stars.saturating_sub(1);
    p + stars
}

/// Matches one byte with the element at `p`; the index behind that element.
fn match_one(pattern: &[u8], p: usize, byte: u8, compared: &mut usize) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p + 1, byte, compared),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// A class ends at `]` or with the pattern. Ranges compare signed bytes, as Redis does.
fn match_class(pattern: &[u8], start: usize, byte: u8, compared: &mut usize) -> Option<usize> {
    let negated = pattern.get(start) == Some(&b'^');
    let mut p = start + usize::from(negated);
    let mut found = false;
    loop {
        match pattern.get(p..).unwrap_or_default() {
            [] => break,
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                p += 2;
            }
            [b']', ..] => {
                p += 1;
                break;
            }
            [a, b'-', b, ..] => {
                let (a, b, byte) = (*a as i8, *b as i8, byte as i8);
                found |= (a.min(b)..=a.max(b)).contains(&byte);
                p += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                p += 1;
            }
        }
    }
    *compared += p - start;
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "abc", true),
            ("*", "", false),
            ("", "", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "aXbYbZc", true),
            ("*a*", "a", true),
            ("a**", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[\\]]llo", "h]llo", true),
            ("h[ab", "ha", true),
            ("h[", "ha", false),
            ("h[^", "ha", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[a-]", "a", true),
            ("[a-]x", "ax", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_would_take_too_many_comparisons_is_given_up() {
        let given_up = |pattern: &str, text: &str, most| {
            let mut compared = 0;
            let found = matches_within(pattern.as_bytes(), text.as_bytes(), most, &mut compared);
            (found.is_none(), compared)
        };
        let (pattern, text) = ("*".to_owned() + &"a".repeat(500) + "b", "a".repeat(1000));
        assert_eq!(given_up(&pattern, &text, 1000), (true, 1001));
        assert!(given_up(&pattern, &text, 1_000_000).1 > 250_000);
        // The characters of a class count, too.
        let class = "[".to_owned() + &"b".repeat(1000) + "]";
        let (gave_up, compared) = given_up(&("*".to_owned() + &class), &text, 100_000);
        assert!(gave_up && compared < 102_000, "{compared}");
        assert_eq!(given_up("user:*", "user:1", 7), (false, 6));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "a*".repeat(5000) + "b";
        assert!(!matches(pattern.as_bytes(), &vec![b'a'; 20_000]));
    }

    #[test]
    fn a_run_of_stars_counts_as_long_as_it_is() {
        for pattern in ["*".repeat(1000) + "x", "abc".to_owned() + &"*".repeat(1000) + "x"] {
            let mut compared = 0;
            let found = matches_within(pattern.as_bytes(), b"abc", usize::MAX, &mut compared);
            assert!(found == Some(false) && compared >= 999, "{found:?}, {compared}");
        }
    }
}

//! Tests of the arithmetic, with values that were taken from redis-server 7.0.15 on x86-64.

use super::*;

fn sum(a: &str, b: &str) -> String {
    let parse = |text: &str| Extended::parse(text.as_bytes()).expect("a number");
    parse(a).checked_add(parse(b)).map_or("none".to_owned(), Extended::to_text)
}

#[test]
fn sums_have_the_digits_of_redis() {
    for (a, b, expected) in [
        ("0.1", "0.2", "0.3"),
        ("10.50", "0.1", "10.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("3", "-3", "0"),
        ("-1e-20", "0", "0"),
        ("0", "3000.1", "3000.10000000000000009"),
        ("0x10", "3000.1", "3016.10000000000000009"),
        ("3016.10000000000000009", "1e-4940", "3016.10000000000000009"),
        ("1e4932", "1e4932", "none"),
        ("0x1p63", "0x1p-1", "9223372036854775808"),
        ("0x1p63", "0x1.8p0", "9223372036854775810"),
        ("0x1p63", "0x3p-1", "9223372036854775810"),
        ("0x1p64", "-1", "18446744073709551615"),
        ("0x1p64", "-0x1p-1", "18446744073709551616"),
        ("0x1p100", "-0x1p-100", "1267650600228229401496703205376"),
        ("1e30", "0", "1000000000000000000024696061952"),
    ] {
        assert_eq!(sum(a, b), expected, "{a} + {b}");
    }
}

#[test]
fn only_what_redis_takes_is_taken() {
    for text in
        ["1", "+1", "-1.", ".5", "1e5", "1E-5", "0x1.8p3", "0X.8", "inf", "-Infinity", "0e99999"]
    {
        assert!(Extended::parse(text.as_bytes()).is_some(), "{text:?}");
        assert!(parse_f64(text.as_bytes()).is_some(), "{text:?}");
    }
    for text in [
        "",
        " 1",
        "1 ",
        "1e",
        "e5",
        ".",
        "0x",
        "0x.p1",
        "nan",
        "-nan",
        "1e5000",
        "1e-5000",
        "1..2",
        "--1",
        "1_0",
        "1e5.0",
        "0x1p99999",
        "1\0",
        "infinit",
        "1e99999999999999999999999",
    ] {
        assert!(Extended::parse(text.as_bytes()).is_none(), "{text:?}");
        assert!(parse_f64(text.as_bytes()).is_none(), "{text:?}");
    }
    assert!(Extended::parse(b"1e400").is_some() && parse_f64(b"1e400").is_none());
    assert!(Extended::parse(&[b'1'; 5119][..]).is_none(), "above the range");
    assert!(Extended::parse(&[b'0'; 5119][..]).is_some());
    assert!(Extended::parse(&[b'0'; 5120][..]).is_none(), "too long");
}

#[test]
fn bounds_are_read_more_generously() {
    for (text, value) in [("", 0.0), (" 5", 5.0), ("1e400", f64::INFINITY), ("1e-400", 0.0)] {
        assert_eq!(parse_bound(text.as_bytes()), Some(value), "{text:?}");
    }
    for text in ["nan", "5 ", "x", " "] {
        assert_eq!(parse_bound(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn scores_look_as_with_17_significant_digits() {
    for (value, text) in [
        (0.1, "0.10000000000000001"),
        (1.5, "1.5"),
        (-0.0, "-0"),
        (0.0, "0"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (123456789012345678.0, "1.2345678901234568e+17"),
        (-1e20, "-1e+20"),
        (0.0001, "0.0001"),
        (0.00001, "1.0000000000000001e-05"),
        (1e-300, "1e-300"),
        (1e300, "1.0000000000000001e+300"),
        (f64::NEG_INFINITY, "-inf"),
        (99999999999999999.0, "1e+17"),
        (3.3, "3.2999999999999998"),
    ] {
        assert_eq!(format_f64(value), text);
    }
}

/// Every double is an extended number, and sums of doubles that are exact agree with `f64`.
#[test]
fn agrees_with_doubles_where_they_are_exact() {
    let mut x = 88u64;
    for _ in 0..20_000 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let a = ((x >> 20) as i64 - (1 << 43)) as f64 / 1024.0;
        let b = ((x >> 13 & 0xffff_ffff) as i64 - (1 << 31)) as f64 / 256.0;
        let text = sum(&format!("{a:.10}"), &format!("{b:.10}"));
        assert_eq!(text.parse::<f64>(), Ok(a + b), "{a} + {b}");
        let any = f64::from_bits(x);
        if any.is_finite() {
            assert_eq!(parse_f64(format_f64(any).as_bytes()), Some(any));
            let bits = any.to_bits() & !(1 << 63);
            let (exponent, mantissa) = (bits >> 52, bits & ((1 << 52) - 1));
            let hex = match exponent {
                0 => format!("0x{mantissa:x}p-1074"),
                e => format!("0x{:x}p{}", mantissa | 1 << 52, e as i64 - 1075),
            };
            assert_eq!(parse_f64(hex.as_bytes()), Some(any.abs()), "{hex}");
        }
    }
    assert_eq!(parse_f64(b"0x1p-1074"), Some(f64::from_bits(1)));
    assert_eq!(parse_f64(b"0x1.fffffffffffff8p1023"), None);
}

/// Digits that decide nothing are not computed with: that would take their number squared.
#[test]
fn long_hexadecimal_numbers_take_as_long_as_they_are() {
    let (ones, zeroes) = ("f".repeat(4_000_000), "0".repeat(4_000_000));
    let parse = |text: String| parse_f64(text.as_bytes());
    assert_eq!(parse(format!("0x0.{ones}")), Some(1.0));
    assert_eq!(parse(format!("0x{zeroes}1.8{zeroes}")), Some(1.5));
    assert_eq!(parse(format!("0x1{zeroes}p-16000000")), Some(1.0));
    // Half way between two numbers, the last digit of all decides.
    let half = format!("0x1.00000000000008{zeroes}");
    assert_eq!(parse(half.clone()), Some(1.0));
    assert_eq!(parse(half + "1"), Some(1.0 + f64::EPSILON));
}

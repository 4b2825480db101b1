//! Durations, sizes and ratios as people write them: `"1h30m"`, `"64KiB"`, `"20%"`.
//!
//! A number without a unit is refused, with the units offered: thirty of what is the mistake such files are known for.
//! Whole numbers with a unit, added up; no floats, so that nothing rounds. Arithmetic that would overflow is refused.

use std::time::Duration;

/// What was expected instead, as a sentence's end: `a duration such as "10s"`.
pub type Expected = &'static str;

/// What a duration looks like.
pub const DURATION: Expected = "a duration such as \"250ms\", \"10s\", \"5m\", \"1h30m\" or \"1d\"";
/// What a size looks like.
pub const SIZE: Expected = "a size such as \"64KiB\", \"10MiB\" or \"2GiB\"";
/// What a ratio looks like.
pub const RATIO: Expected = "a share from \"0%\" to \"100%\"";
/// What a rate looks like.
pub const RATE: Expected = "a rate such as \"100/s\" or \"5/m\"";

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `"1m30s"`: numbers with units, largest first, added up.
pub fn duration(text: &str) -> Result<Duration, Expected> {
    sum(text, &DURATION_UNITS).map(Duration::from_millis).ok_or(DURATION)
}

/// `"64KiB"`: one number with one unit.
pub fn size(text: &str) -> Result<u64, Expected> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = text[digits..].trim_start();
    let factor =
        SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, factor)| factor);
    let number = text[..digits].parse::<u64>().ok();
    number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or(SIZE)
}

/// `"20%"`, in parts per million; up to four decimals are exact.
pub fn ratio_ppm(text: &str) -> Result<u32, Expected> {
    const ONE_PERCENT_PPM: u32 = 10_000;
    let number = text.strip_suffix('%').ok_or(RATIO)?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits_only(whole) || !digits_only(decimals) || whole.len() > 3 || decimals.len() > 4 {
        return Err(RATIO);
    }
    let whole = whole.parse::<u32>().map_err(|_| RATIO)?;
    let decimals = format!("{decimals:0<4}").parse::<u32>().map_err(|_| RATIO)?;
    let ppm = whole * ONE_PERCENT_PPM + decimals;
    if ppm <= 100 * ONE_PERCENT_PPM { Ok(ppm) } else { Err(RATIO) }
}

/// `"100/s"`, per second.
pub fn rate_per_second(text: &str) -> Result<f64, Expected> {
    let (count, unit) = text.split_once('/').ok_or(RATE)?;
    let count = count.trim().parse::<f64>().map_err(|_| RATE)?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(RATE),
    };
    if count.is_finite() && count > 0.0 { Ok(count / seconds) } else { Err(RATE) }
}

/// A duration as [`duration`] reads it: `1h30m`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, factor) in DURATION_UNITS.iter().rev() {
        if rest >= *factor {
            out += &format!("{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// A size as [`size`] reads it, in the largest unit that needs no decimals: `512MiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let binary =
        SIZE_UNITS[5..].iter().rev().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    binary.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A ratio as [`ratio_ppm`] reads it: `12.5%`.
#[must_use]
pub fn ratio_text(ppm: u32) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Adds up `number unit` pairs whose units must get smaller, so that `"30s1m"` is a slip and not ninety seconds.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    let mut smallest = u64::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = rest[..digits].parse::<u64>().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let factor = units.iter().find(|(name, _)| *name == &rest[..letters]).map(|&(_, factor)| factor)?;
        if factor >= smallest {
            return None;
        }
        smallest = factor;
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        };
        check("250ms", Some(250));
        check("10s", Some(10_000));
        check("5 m", Some(300_000));
        check("1h30m", Some(5_400_000));
        check("1d", Some(86_400_000));
        for bad in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1.5s",
            "30s1m",
            "1s1s",
            "99999999999999999999s",
            "999999999999999999d",
            "1é",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes_have_units() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text).ok(), bytes, "{text}");
        check("64KiB", Some(65_536));
        check("1 GiB", Some(1 << 30));
        check("10mb", Some(10_000_000));
        check("0B", Some(0));
        for bad in ["", "64", "KiB", "1.5GiB", "64QiB", "99999999TiB", "-1B", "1é"] {
            check(bad, None);
        }
    }

    #[test]
    fn ratios_are_percentages() {
        let check = |text: &str, ppm: Option<u32>| assert_eq!(ratio_ppm(text).ok(), ppm, "{text}");
        check("20%", Some(200_000));
        check("0.5%", Some(5_000));
        check("100%", Some(1_000_000));
        check("0%", Some(0));
        for bad in ["", "%", "20", "101%", "100.1%", "-1%", "0.00001%", ".5%", "5.%", "٣%"] {
            check(bad, None);
        }
    }

    #[test]
    fn rates_have_a_unit_of_time() {
        assert_eq!(rate_per_second("500/s"), Ok(500.0));
        assert_eq!(rate_per_second("30/m"), Ok(0.5));
        for bad in ["500", "0/s", "-1/s", "x/s", "1/y", "inf/s", "nan/s"] {
            assert_eq!(rate_per_second(bad), Err(RATE), "{bad}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        for text in ["250ms", "10s", "1h30m", "1d", "0s"] {
            assert_eq!(duration_text(duration(text).expect(text)), text);
        }
        for text in ["512B", "64KiB", "512MiB", "2GiB"] {
            assert_eq!(size_text(size(text).expect(text)), text);
        }
        for text in ["0%", "1%", "12.5%", "100%"] {
            assert_eq!(ratio_text(ratio_ppm(text).expect(text)), text);
        }
    }
}

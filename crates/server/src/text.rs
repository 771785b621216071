//! Durations, rates, sizes and times as people write them, the same in configuration and API.

use std::fmt::Write as _;
use std::time::Duration;

use waystation_core::policy::Rate;
use waystation_core::time::Timestamp;

/// The longest duration that is taken: beyond ten years a typing mistake is likelier than a plan.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(3_650 * 24 * 3_600);
/// The highest rate that is taken, in starts a second.
pub(crate) const RATE_MAX: f64 = 1_000_000.0;

/// The earliest and latest time that is taken: 2000-01-01 and 2200-01-01, in seconds.
const TIME_BOUNDS: std::ops::Range<i64> = 946_684_800..7_258_118_400;

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration: whole numbers with the units d, h, m, s, ms, the largest first, at most ten years.
///
/// # Errors
/// Says what is wrong with the text and how to write it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "is no duration: {text:?}; write whole numbers with units, the largest first, such as \"30s\", \
             \"1h30m\" or \"250ms\" (units: d h m s ms)"
        )
    };
    let mut rest = text;
    let mut millis = 0_u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(letters).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        millis = millis.saturating_add(number.saturating_mul(*factor));
        rest = tail;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let duration = Duration::from_millis(millis);
    if duration > DURATION_MAX {
        return Err(format!(
            "is too long: {text:?}; at most \"3650d\" is allowed"
        ));
    }
    Ok(duration)
}

/// Writes a duration the way [`parse_duration`] reads it, to the millisecond.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS {
        let number = millis / factor;
        millis %= factor;
        if number > 0 {
            let written = write!(text, "{number}{unit}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
    }
    text
}

/// Writes a duration for people: rounded up to what matters at its size, so that nothing is promised
/// too early.
pub(crate) fn rough_text(duration: Duration) -> String {
    let step = match duration.as_secs() {
        0 => 1,
        1..3_600 => 1_000,
        3_600..86_400 => 60_000,
        _ => 3_600_000,
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    duration_text(Duration::from_millis(
        millis.div_ceil(step).saturating_mul(step),
    ))
}

/// Reads a rate: a whole number a second, minute or hour, at most a million a second.
///
/// # Errors
/// Says what is wrong with the text and how to write it.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || {
        format!(
            "is no rate: {text:?}; write a whole number above 0 a second, minute or hour, such as \"200/s\", \
             \"90/m\" or \"1000/h\""
        )
    };
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let rate = f64::from(number) / seconds;
    if rate > RATE_MAX {
        return Err(format!(
            "is too fast: {text:?}; at most \"1000000/s\" is allowed"
        ));
    }
    Rate::per_second(rate).ok_or_else(wrong)
}

/// Writes a rate the way [`parse_rate`] reads it, with the shortest unit that gives a whole number.
pub(crate) fn rate_text(rate: Rate) -> String {
    for (unit, seconds) in [("s", 1.0), ("m", 60.0)] {
        let number = rate.get() * seconds;
        if (number - number.round()).abs() < 1e-6 {
            return format!("{number:.0}/{unit}");
        }
    }
    format!("{:.0}/h", rate.get() * 3_600.0)
}

/// Reads a size: a whole number of B, KiB or MiB, from 1 B to 64 MiB.
///
/// # Errors
/// Says what is wrong with the text and how to write it.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || {
        format!(
            "is no size: {text:?}; write a whole number with a unit, such as \"1MiB\" or \"64KiB\" (units: B KiB MiB)"
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: usize = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return Err(wrong()),
    };
    let size = number.saturating_mul(factor);
    if !(1..=64 << 20).contains(&size) {
        return Err(format!(
            "is out of bounds: {text:?}; allowed are \"1B\" to \"64MiB\""
        ));
    }
    Ok(size)
}

/// Writes a size the way [`parse_size`] reads it.
pub(crate) fn size_text(size: usize) -> String {
    for (unit, factor) in [("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if size >= factor && size.is_multiple_of(factor) {
            return format!("{}{unit}", size / factor);
        }
    }
    format!("{size}B")
}

/// Reads a time: RFC 3339 with an offset, from the year 2000 to 2200.
///
/// # Errors
/// Says what is wrong with the text and how to write it.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong =
        || format!("is no time: {text:?}; write RFC 3339, such as \"2026-11-21T09:30:00Z\"");
    // jiff also takes zone annotations and other ISO forms, which RFC 3339 has not.
    if text.len() > 40
        || text.contains('[')
        || text
            .as_bytes()
            .get(10)
            .is_none_or(|&at| !b"Tt ".contains(&at))
    {
        return Err(wrong());
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    if !TIME_BOUNDS.contains(&time.as_second()) {
        return Err(format!(
            "is out of bounds: {text:?}; allowed are the years 2000 to 2199"
        ));
    }
    Ok(Timestamp::from_micros(time.as_microsecond()))
}

/// Writes a time in UTC with milliseconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.as_micros()) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => "never".to_owned(),
    }
}

/// Gives the known word that is nearest to a mistyped one, if one is near enough to be meant.
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (distance(typed, word), word))
        .filter(|(distance, word)| *distance <= 1.max(word.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The Levenshtein distance.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().take(64).enumerate() {
        let mut left = i + 1;
        let mut diagonal = std::mem::replace(&mut row[0], left);
        for (j, b) in two.iter().enumerate() {
            let above = row[j + 1];
            left = (diagonal + usize::from(a != *b))
                .min(left + 1)
                .min(above + 1);
            diagonal = std::mem::replace(&mut row[j + 1], left);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let good = [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("0s", 0),
            ("2m5s10ms", 125_010),
            ("3650d", 315_360_000_000),
        ];
        for (text, millis) in good {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        let bad = [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "30 s",
            "1m1h",
            "1s1s",
            "1w",
            "1h30",
            "３s",
            "99999999999999999999s",
        ];
        for text in bad {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("is no duration"), "{text}: {error}");
        }
        let long = parse_duration("3651d").expect_err("too long");
        assert!(long.contains("at most \"3650d\""), "{long}");
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["30s", "1h30m", "250ms", "1d", "0s", "2m5s10ms"] {
            assert_eq!(duration_text(parse_duration(text).expect("good")), text);
        }
        for text in ["200/s", "90/m", "1000/h", "7/h"] {
            assert_eq!(rate_text(parse_rate(text).expect("good")), text);
        }
        for text in ["1MiB", "64KiB", "1B", "1000B"] {
            assert_eq!(size_text(parse_size(text).expect("good")), text);
        }
        for text in ["2026-11-21T09:30:00.000Z", "2026-01-01T00:00:00.250Z"] {
            assert_eq!(time_text(parse_time(text).expect("good")), text);
        }
    }

    #[test]
    fn durations_for_people_are_rounded_up_to_what_matters() {
        for (millis, text) in [
            (0, "0s"),
            (248, "248ms"),
            (1_001, "2s"),
            (60_248, "1m1s"),
            (3_599_001, "1h"),
            (3_600_001, "1h1m"),
            (90_000_000, "1d1h"),
            (90_000_001, "1d2h"),
        ] {
            assert_eq!(rough_text(Duration::from_millis(millis)), text, "{millis}");
        }
    }

    #[test]
    fn bad_rates_sizes_and_times_are_refused() {
        for text in ["", "0/s", "200", "200/d", "-1/s", "1.5/s", "/s"] {
            assert!(
                parse_rate(text).expect_err(text).contains("is no rate"),
                "{text}"
            );
        }
        assert!(
            parse_rate("1000001/s")
                .expect_err("fast")
                .contains("too fast")
        );
        for text in ["", "1", "1MB", "MiB", "-1B"] {
            assert!(
                parse_size(text).expect_err(text).contains("is no size"),
                "{text}"
            );
        }
        for text in ["0B", "65MiB"] {
            assert!(
                parse_size(text).expect_err(text).contains("out of bounds"),
                "{text}"
            );
        }
        for text in [
            "",
            "tomorrow",
            "2026-11-21",
            "2026-11-21T09:30:00",
            "2026-11-21T09:30:00+01:00[Europe/Berlin]",
            "20261121T093000Z",
        ] {
            assert!(
                parse_time(text).expect_err(text).contains("is no time"),
                "{text}"
            );
        }
        for text in ["1999-12-31T23:59:59Z", "2200-01-01T00:00:00Z"] {
            assert!(
                parse_time(text).expect_err(text).contains("out of bounds"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_nearest_word_is_found_only_when_it_is_near() {
        assert_eq!(nearest("listn", ["listen", "slots"]), Some("listen"));
        assert_eq!(
            nearest("concurency", ["concurrency", "rate"]),
            Some("concurrency")
        );
        assert_eq!(nearest("banana", ["listen", "slots"]), None);
    }
}

//! Text to numbers: durations, rates and windows as they are written on the command line and in JSON.

use std::time::Duration;

/// The longest duration that is taken: a year says "for ever" well enough.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Reads a duration such as `250ms`, `5s`, `1h30m` or `0`.
///
/// # Errors
/// Says what was expected where the text is something else.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is not a duration; write a number and a unit: 250ms, 5s, 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let (unit, next) = split_where(after, |c| !c.is_ascii_alphabetic());
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.saturating_add(part);
        rest = next;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    if total > DURATION_MAX {
        return Err(format!("'{text}' is longer than a year"));
    }
    Ok(total)
}

/// Reads a rate such as `200/s`, `90/m` or `200` (a second) as starts a second.
///
/// # Errors
/// Says what was expected where the text is something else, or not above zero.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is not a rate; write calls a second: 200/s, or 90/m");
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let per_second = match unit {
        "s" => number,
        "m" => number / 60.0,
        "h" => number / 3_600.0,
        _ => return Err(wrong()),
    };
    if per_second.is_finite() && per_second > 0.0 {
        Ok(per_second)
    } else {
        Err(wrong())
    }
}

/// Reads a share such as `0.2` or `20%`.
///
/// # Errors
/// Says what was expected where the text is something else, or not from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is not a share; write a number from 0 to 1, or 20%");
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map_err(|_| wrong())? / 100.0,
        None => text.parse().map_err(|_| wrong())?,
    };
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(wrong())
    }
}

/// Reads an HTTP status that can be an answer, 200 to 599.
///
/// # Errors
/// Says what was expected where the text is something else.
pub(crate) fn status(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| format!("'{text}' is not an HTTP status from 200 to 599"))
}

/// Writes a duration the way [`duration`] reads it, in its two largest units at most.
pub(crate) fn show(of: Duration) -> String {
    let seconds = of.as_secs();
    if of == Duration::ZERO {
        return "0s".to_owned();
    }
    if seconds < 60 {
        let millis = of.as_millis();
        if millis == 0 {
            return format!("{}us", of.as_micros());
        }
        return match (seconds, millis % 1_000) {
            (0, millis) => format!("{millis}ms"),
            (_, 0) => format!("{seconds}s"),
            (_, _) => format!("{}s", of.as_secs_f64()),
        };
    }
    let (large, small) = if seconds < 3_600 {
        ((seconds / 60, "m"), (seconds % 60, "s"))
    } else {
        ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "m"))
    };
    if small.0 == 0 {
        format!("{}{}", large.0, large.1)
    } else {
        format!("{}{}{}{}", large.0, large.1, small.0, small.1)
    }
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(
            duration(text).ok(),
            expected.map(Duration::from_millis),
            "{text}"
        );
    }

    #[test]
    fn durations_are_numbers_with_units_and_nothing_else() {
        check_duration("250ms", Some(250));
        check_duration("5s", Some(5_000));
        check_duration("1.5s", Some(1_500));
        check_duration("1h30m", Some(5_400_000));
        check_duration("0", Some(0));
        for wrong in [
            "", "5", "s", "5 s", "-1s", "5x", "1s2", "1e9s", "999999d", "..s",
        ] {
            check_duration(wrong, None);
        }
    }

    #[test]
    fn a_duration_is_shown_the_way_it_is_read() {
        for text in [
            "20ms", "5s", "1m", "1m30s", "1h", "1h30m", "1.5s", "0s", "5us",
        ] {
            assert_eq!(show(duration(text).expect("it is well formed")), text);
        }
    }

    #[test]
    fn rates_and_shares_and_statuses_keep_to_their_bounds() {
        assert_eq!(rate("200/s"), Ok(200.0));
        assert_eq!(rate("90/m"), Ok(1.5));
        assert_eq!(share("20%"), Ok(0.2));
        assert_eq!(share("1"), Ok(1.0));
        assert_eq!(status("503"), Ok(503));
        for wrong in ["0", "-1/s", "1/x", "NaN", "inf", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["1.1", "-0.1", "101%", "NaN", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        for wrong in ["100", "600", "abc", ""] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }
}

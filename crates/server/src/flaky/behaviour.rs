//! What a place does to its callers: failures, latency, outages, capacity. Pure: no clock, no chance.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::units;

/// The most outages one behaviour holds; more are refused.
const OUTAGES_MAX: usize = 1_000;
/// What a call over the capacity is told to wait where no `retry-after` was given.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// How an outage looks from the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing listens: connects are refused, and connections that were open are reset.
    Refuse,
    /// Connections are accepted, and reset once a request came in.
    Reset,
    /// Requests are taken and never answered.
    Hang,
    /// Every call is answered with this status.
    Status(u16),
}

impl FromStr for Style {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "reset" => Ok(Self::Reset),
            "hang" => Ok(Self::Hang),
            other => units::status(other).map(Self::Status).map_err(|_| {
                format!("'{other}' is no style of outage; write refuse, reset, hang, or a status")
            }),
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Reset => f.write_str("reset"),
            Self::Hang => f.write_str("hang"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// A time of being down, counted from the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// When it begins.
    pub(crate) from: Duration,
    /// When it is over; [`Duration::MAX`] where only a word to the control endpoint ends it.
    pub(crate) to: Duration,
    /// How it looks.
    pub(crate) style: Style,
}

impl FromStr for Outage {
    type Err = String;

    /// Reads `10s..25s`, `10s..` or `10s..25s:reset`; the style is `refuse` unless it is given.
    fn from_str(text: &str) -> Result<Self, String> {
        let (window, style) = text.split_once(':').unwrap_or((text, "refuse"));
        let Some((from, to)) = window.split_once("..") else {
            return Err(format!(
                "'{text}' is not an outage; write FROM..TO with an optional style: 10s..25s:reset"
            ));
        };
        let outage = Self {
            from: units::duration(from)?,
            to: if to.is_empty() {
                Duration::MAX
            } else {
                units::duration(to)?
            },
            style: style.parse()?,
        };
        if outage.from < outage.to {
            Ok(outage)
        } else {
            Err(format!("'{text}' ends before it begins"))
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", units::show(self.from))?;
        if self.to != Duration::MAX {
            f.write_str(&units::show(self.to))?;
        }
        write!(f, ":{}", self.style)
    }
}

/// What a listener or a path does, complete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Behaviour {
    /// The share of calls that fail, 0 to 1.
    pub(crate) fail: f64,
    /// What a failing call is answered.
    pub(crate) fail_status: u16,
    /// How long an answer takes at least.
    pub(crate) latency: Duration,
    /// How much longer it takes at most.
    pub(crate) latency_jitter: Duration,
    /// What a refused call is told to wait.
    pub(crate) retry_after: Option<Duration>,
    /// Calls a second above which calls are answered 429.
    pub(crate) capacity: Option<f64>,
    /// How long the capacity takes to climb back after an outage.
    pub(crate) recover: Duration,
    /// When it is down; the first that covers a moment counts.
    pub(crate) outages: Vec<Outage>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            fail: 0.0,
            fail_status: 500,
            latency: Duration::ZERO,
            latency_jitter: Duration::ZERO,
            retry_after: None,
            capacity: None,
            recover: Duration::ZERO,
            outages: Vec::new(),
        }
    }
}

impl Behaviour {
    /// Gives the outage that covers a moment.
    pub(crate) fn outage_at(&self, now: Duration) -> Option<Outage> {
        self.outages
            .iter()
            .find(|outage| outage.from <= now && now < outage.to)
            .copied()
    }

    /// Gives the next moment after `now` at which an outage begins or ends.
    pub(crate) fn next_turn(&self, now: Duration) -> Option<Duration> {
        self.outages
            .iter()
            .flat_map(|outage| [outage.from, outage.to])
            .filter(|moment| *moment > now && *moment != Duration::MAX)
            .min()
    }

    /// Gives the calls a second it bears at a moment: after an outage it climbs linearly
    /// from one call a second to all of `capacity` within `recover`.
    pub(crate) fn capacity_at(&self, now: Duration) -> Option<f64> {
        let capacity = self.capacity?;
        let up_since = self.outages.iter().map(|outage| outage.to);
        let Some(up_since) = up_since.filter(|moment| *moment <= now).max() else {
            return Some(capacity);
        };
        let up_for = now.saturating_sub(up_since);
        if up_for >= self.recover {
            return Some(capacity);
        }
        let climbed = up_for.as_secs_f64() / self.recover.as_secs_f64();
        Some((capacity * climbed).max(1.0).min(capacity))
    }

    /// Decides what becomes of one call; `admitted` says whether the capacity had room for it.
    pub(crate) fn answer(&self, now: Duration, chance: Chance, admitted: bool) -> Answer {
        if let Some(outage) = self.outage_at(now) {
            return match outage.style {
                Style::Refuse | Style::Reset => Answer::Reset,
                Style::Hang => Answer::Hang,
                Style::Status(429) => Answer::now(429, Some(self.wait()), Cause::Outage),
                Style::Status(status @ 503) => Answer::now(status, self.retry_after, Cause::Outage),
                Style::Status(status) => Answer::now(status, None, Cause::Outage),
            };
        }
        if !admitted {
            return Answer::now(429, Some(self.wait()), Cause::Capacity);
        }
        let latency = self.latency + self.latency_jitter.mul_f64(chance.latency);
        let (status, cause) = if chance.fail < self.fail {
            (self.fail_status, Cause::Chance)
        } else {
            (200, Cause::Fine)
        };
        let retry_after = match status {
            429 => Some(self.wait()),
            503 => self.retry_after,
            _ => None,
        };
        Answer::Status {
            status,
            retry_after,
            latency,
            cause,
        }
    }

    fn wait(&self) -> Duration {
        self.retry_after.unwrap_or(RETRY_AFTER_DEFAULT)
    }
}

/// The two draws a call gets, each from `[0, 1)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    /// Decides whether it fails.
    pub(crate) fail: f64,
    /// Decides how much of the jitter it waits.
    pub(crate) latency: f64,
}

/// Why a call was answered the way it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing was wrong.
    Fine,
    /// The failure rate hit it.
    Chance,
    /// An outage was on.
    Outage,
    /// The capacity was used up.
    Capacity,
}

impl Cause {
    /// Gives the word the log has for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Chance => "chance",
            Self::Outage => "outage",
            Self::Capacity => "capacity",
        }
    }
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// It is answered, after a while.
    Status {
        /// With this status.
        status: u16,
        /// And this `Retry-After`.
        retry_after: Option<Duration>,
        /// After this long.
        latency: Duration,
        /// For this reason.
        cause: Cause,
    },
    /// Its connection is reset.
    Reset,
    /// It is left without an answer while the outage lasts, then reset.
    Hang,
}

impl Answer {
    const fn now(status: u16, retry_after: Option<Duration>, cause: Cause) -> Self {
        Self::Status {
            status,
            retry_after,
            latency: Duration::ZERO,
            cause,
        }
    }

    /// Gives the reason behind it.
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Self::Status { cause, .. } => cause,
            Self::Reset | Self::Hang => Cause::Outage,
        }
    }
}

/// Part of a behaviour: what is given replaces what was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) fail: Option<f64>,
    pub(crate) fail_status: Option<u16>,
    pub(crate) latency: Option<Duration>,
    pub(crate) latency_jitter: Option<Duration>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) capacity: Option<f64>,
    pub(crate) recover: Option<Duration>,
    pub(crate) outages: Option<Vec<Outage>>,
}

impl Change {
    /// Lays the change over a behaviour.
    pub(crate) fn apply(&self, to: &mut Behaviour) {
        to.fail = self.fail.unwrap_or(to.fail);
        to.fail_status = self.fail_status.unwrap_or(to.fail_status);
        to.latency = self.latency.unwrap_or(to.latency);
        to.latency_jitter = self.latency_jitter.unwrap_or(to.latency_jitter);
        to.retry_after = self.retry_after.or(to.retry_after);
        to.capacity = self.capacity.or(to.capacity);
        to.recover = self.recover.unwrap_or(to.recover);
        if let Some(outages) = &self.outages {
            to.outages.clone_from(outages);
        }
    }

    /// Lays a later change over this one.
    pub(crate) fn merge(&mut self, later: Self) {
        self.fail = later.fail.or(self.fail);
        self.fail_status = later.fail_status.or(self.fail_status);
        self.latency = later.latency.or(self.latency);
        self.latency_jitter = later.latency_jitter.or(self.latency_jitter);
        self.retry_after = later.retry_after.or(self.retry_after);
        self.capacity = later.capacity.or(self.capacity);
        self.recover = later.recover.or(self.recover);
        if later.outages.is_some() {
            self.outages = later.outages;
        }
    }

    /// Takes one option by its name, as the command line and the control endpoint spell it.
    ///
    /// # Errors
    /// Names the option, and what it takes.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = name.replace('_', "-");
        let in_option = |reason| format!("{name}: {reason}");
        match name.as_str() {
            "fail" => self.fail = Some(units::share(value).map_err(in_option)?),
            "fail-status" => self.fail_status = Some(units::status(value).map_err(in_option)?),
            "latency" => self.latency = Some(units::duration(value).map_err(in_option)?),
            "latency-jitter" => {
                self.latency_jitter = Some(units::duration(value).map_err(in_option)?);
            }
            "retry-after" => self.retry_after = Some(units::duration(value).map_err(in_option)?),
            "capacity" => self.capacity = Some(units::rate(value).map_err(in_option)?),
            "recover" => self.recover = Some(units::duration(value).map_err(in_option)?),
            "outage" => {
                let outages = self.outages.get_or_insert_default();
                if outages.len() == OUTAGES_MAX {
                    return Err(format!("outage: more than {OUTAGES_MAX} of them"));
                }
                outages.push(value.parse().map_err(in_option)?);
            }
            _ => {
                return Err(format!(
                    "'{name}' is no option here; there are fail, fail-status, latency, \
                     latency-jitter, retry-after, capacity, recover and outage"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for Change {
    type Err = String;

    /// Reads `fail=0.1,latency=20ms,outage=5s..9s:reset`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut change = Self::default();
        for option in text.split(',') {
            let (name, value) = option.split_once('=').ok_or_else(|| {
                format!("'{option}' is not an option with a value, such as fail=0.1")
            })?;
            change.set(name.trim(), value.trim())?;
        }
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUCKY: Chance = Chance {
        fail: 0.99,
        latency: 0.5,
    };

    fn behaviour(text: &str) -> Behaviour {
        let mut behaviour = Behaviour::default();
        text.parse::<Change>()
            .expect("it is well formed")
            .apply(&mut behaviour);
        behaviour
    }

    fn check(text: &str, second: u64, chance: Chance, expected: Answer) {
        let answer = behaviour(text).answer(Duration::from_secs(second), chance, true);
        assert_eq!(answer, expected, "{text} at {second} s");
    }

    #[test]
    fn an_outage_decides_before_chance_and_only_while_it_lasts() {
        let fine = Answer::now(200, None, Cause::Fine);
        let unavailable = Answer::now(503, None, Cause::Outage);
        check("outage=5s..9s:503", 4, LUCKY, fine);
        check("outage=5s..9s:503", 5, LUCKY, unavailable);
        check("outage=5s..9s:503", 9, LUCKY, fine);
        check("outage=5s..:hang", 9_999, LUCKY, Answer::Hang);
        check("outage=0s..1s:reset", 0, LUCKY, Answer::Reset);
        check("fail=1,outage=0s..1s:503", 0, LUCKY, unavailable);
    }

    #[test]
    fn a_throttling_outage_names_a_wait_and_a_503_only_when_told() {
        let wait = |seconds| Some(Duration::from_secs(seconds));
        check(
            "outage=0s..9s:429",
            1,
            LUCKY,
            Answer::now(429, wait(1), Cause::Outage),
        );
        check(
            "outage=0s..9s:429,retry-after=3s",
            1,
            LUCKY,
            Answer::now(429, wait(3), Cause::Outage),
        );
        check(
            "outage=0s..9s:503,retry-after=3s",
            1,
            LUCKY,
            Answer::now(503, wait(3), Cause::Outage),
        );
    }

    #[test]
    fn chance_below_the_rate_fails_the_call_after_its_latency() {
        let failed = |status| Answer::Status {
            status,
            retry_after: None,
            latency: Duration::from_millis(25),
            cause: Cause::Chance,
        };
        let unlucky = Chance {
            fail: 0.19,
            latency: 0.5,
        };
        let text = "fail=0.2,fail-status=502,latency=20ms,latency-jitter=10ms";
        check(text, 0, unlucky, failed(502));
        let fine = Answer::Status {
            status: 200,
            retry_after: None,
            latency: Duration::from_millis(25),
            cause: Cause::Fine,
        };
        check(text, 0, LUCKY, fine);
    }

    #[test]
    fn a_call_over_the_capacity_is_told_to_wait() {
        let answer = behaviour("capacity=5/s,retry-after=2s").answer(Duration::ZERO, LUCKY, false);
        let wait = Some(Duration::from_secs(2));
        assert_eq!(answer, Answer::now(429, wait, Cause::Capacity));
    }

    #[test]
    fn capacity_climbs_linearly_after_an_outage() {
        let slow = behaviour("capacity=100/s,recover=10s,outage=5s..15s");
        for (second, expected) in [(0, 100.0), (15, 1.0), (16, 10.0), (20, 50.0), (25, 100.0)] {
            let capacity = slow.capacity_at(Duration::from_secs(second));
            assert_eq!(capacity, Some(expected), "at {second} s");
        }
        assert_eq!(behaviour("fail=0").capacity_at(Duration::ZERO), None);
    }

    #[test]
    fn the_next_turn_is_the_nearest_edge_of_an_outage() {
        let twice = behaviour("outage=5s..9s,outage=20s..");
        for (second, expected) in [(0, Some(5)), (5, Some(9)), (9, Some(20)), (20, None)] {
            let turn = twice.next_turn(Duration::from_secs(second));
            assert_eq!(turn, expected.map(Duration::from_secs), "at {second} s");
        }
    }

    #[test]
    fn a_later_change_replaces_only_what_it_names() {
        let mut first: Change = "fail=0.1,latency=5ms,outage=1s..2s"
            .parse()
            .expect("it is well formed");
        first.merge("fail=0.3".parse().expect("it is well formed"));
        let expected: Change = "fail=0.3,latency=5ms,outage=1s..2s"
            .parse()
            .expect("it is well formed");
        assert_eq!(first, expected);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_name_of_the_option() {
        for (text, expected) in [
            ("fail=2", "fail: "),
            ("speed=9", "'speed' is no option"),
            ("fail", "'fail' is not an option with a value"),
            ("outage=9s..5s", "outage: '9s..5s' ends before"),
            ("outage=5s..9s:sulk", "outage: 'sulk' is no style"),
            ("outage=5s", "outage: '5s' is not an outage"),
            ("fail-status=99", "fail-status: "),
        ] {
            let error = text.parse::<Change>().expect_err("it is refused");
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_outage_is_shown_the_way_it_is_read() {
        for text in ["5s..9s:refuse", "10s..:hang", "0s..1m:429"] {
            assert_eq!(
                text.parse::<Outage>()
                    .expect("it is well formed")
                    .to_string(),
                text
            );
        }
    }
}

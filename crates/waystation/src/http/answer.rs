//! Says what an answer means: the response headers, then the kind's `outcomes`, then the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use waystation_core::outcome::{Failure, Finding, Outcome, Verdict};
use waystation_core::time::Timestamp;

use super::endpoint::Override;
use crate::handler::Finished;

/// How long a snooze is when the handler does not say.
const SNOOZE_DEFAULT: Duration = Duration::from_secs(30);
/// The longest snooze that is believed; beyond it a due time belongs into the message.
const SNOOZE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// An answer as far as it was read.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Its status, 200 to 599.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// The beginning of its body.
    pub(super) body: Vec<u8>,
}

/// What an endpoint's operator says about answers.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// What answers of a status are taken for.
    pub(super) outcomes: BTreeMap<u16, Override>,
    /// The longest `Retry-After` that is believed.
    pub(super) retry_after_max: Duration,
}

impl Rules {
    /// Says what an answer means and what that proves about whom.
    pub(super) fn read(&self, answer: &Answer, now: Timestamp) -> Finished {
        let said = text(&answer.headers, "waystation-outcome").and_then(Override::parse);
        let outcome = said.or_else(|| self.outcomes.get(&answer.status.as_u16()).copied());
        match outcome {
            Some(outcome) => self.overridden(outcome, answer, now),
            None => self.by_table(answer, now),
        }
    }

    fn overridden(&self, outcome: Override, answer: &Answer, now: Timestamp) -> Finished {
        let failure = || failure(answer, Some(outcome));
        let (outcome, finding) = match outcome {
            Override::Complete => (Outcome::Completed, Finding::SUCCESS),
            Override::Retry => {
                let mut failure = failure();
                failure.retry_after = self.wait(answer, now);
                (Outcome::Failed(failure), failed(answer.status))
            }
            Override::Throttled => (self.throttled(failure(), answer, now), Finding::ANSWERED),
            Override::Terminal => (Outcome::Refused(failure()), Finding::SUCCESS),
            Override::Snooze => {
                let delay = delay(&answer.headers)
                    .or_else(|| retry_after(&answer.headers, now))
                    .unwrap_or(SNOOZE_DEFAULT)
                    .min(SNOOZE_MAX);
                (Outcome::Snoozed { delay }, Finding::ANSWERED)
            }
            Override::Park => {
                let reason = Arc::clone(&failure().message);
                (Outcome::Parked { reason }, Finding::ANSWERED)
            }
        };
        Finished { outcome, finding }
    }

    fn by_table(&self, answer: &Answer, now: Timestamp) -> Finished {
        let failure = || failure(answer, None);
        let (outcome, finding) = match answer.status.as_u16() {
            200..=299 => (Outcome::Completed, Finding::SUCCESS),
            429 => (self.throttled(failure(), answer, now), Finding::ANSWERED),
            503 if self.wait(answer, now).is_some() => {
                (self.throttled(failure(), answer, now), Finding::ANSWERED)
            }
            401 | 403 | 407 | 408 | 425 | 500..=599 => {
                (Outcome::Failed(failure()), failed(answer.status))
            }
            _ => (Outcome::Refused(failure()), Finding::SUCCESS),
        };
        Finished { outcome, finding }
    }

    fn throttled(&self, failure: Failure, answer: &Answer, now: Timestamp) -> Outcome {
        Outcome::Throttled {
            failure,
            retry_after: self.wait(answer, now),
        }
    }

    /// How long the destination wants to be left alone, at most `retry_after_max`.
    fn wait(&self, answer: &Answer, now: Timestamp) -> Option<Duration> {
        delay(&answer.headers)
            .or_else(|| retry_after(&answer.headers, now))
            .map(|wait| wait.min(self.retry_after_max))
    }
}

/// Of a failure the operation is to blame; of 502 and 504, which come from between, perhaps both.
const fn failed(status: StatusCode) -> Finding {
    match status.as_u16() {
        502 | 504 => Finding {
            destination: Verdict::Failure,
            operation: Verdict::Failure,
        },
        _ => Finding::OPERATION,
    }
}

/// Makes the failure that people see: the handler's code if it gave one, the beginning of its body.
fn failure(answer: &Answer, outcome: Option<Override>) -> Failure {
    let status = answer.status.as_u16();
    let code = match (
        text(&answer.headers, "waystation-error-code"),
        outcome,
        status,
    ) {
        (Some(code), _, _) if !code.trim().is_empty() => code.trim().to_owned(),
        (_, Some(outcome), 200..=299) => format!("asked_to_{}", outcome.as_str()),
        (_, _, 401 | 403 | 407) => "credentials".to_owned(),
        (_, _, 300..=399) => "redirect".to_owned(),
        _ => format!("http_{status}"),
    };
    Failure::new(&code, &message(answer)).with_status(status)
}

fn message(answer: &Answer) -> String {
    let mut message = String::new();
    if answer.status.is_redirection() {
        let to = text(&answer.headers, LOCATION.as_str()).unwrap_or("nowhere");
        let to: String = to.chars().take(256).collect();
        write!(
            message,
            "redirected to {to}, which is never followed: mend the url. "
        )
        .expect("a String takes everything");
    }
    let body = String::from_utf8_lossy(&answer.body);
    match body.trim() {
        "" => write!(message, "answered {}", answer.status).expect("a String takes everything"),
        body => message.push_str(body),
    }
    message
}

/// `Waystation-Delay`: a duration as in our configuration; none where absent, zero or garbage.
fn delay(headers: &HeaderMap) -> Option<Duration> {
    text(headers, "waystation-delay")
        .and_then(|text| duration(text.trim()))
        .filter(|delay| !delay.is_zero())
}

/// `Retry-After`: seconds or an HTTP date; none where absent, past or garbage.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER.as_str())?.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) {
        match value.len() {
            0 => return None,
            1..=18 => Duration::from_secs(value.parse().ok()?),
            _ => Duration::MAX,
        }
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let date = date.duration_since(UNIX_EPOCH).ok()?;
        (Timestamp::EPOCH + date).since(now)
    };
    (!wait.is_zero()).then_some(wait)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a duration such as `30s`, `1h30m`, `250ms`; none where it is none.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let number = number.parse::<u32>().ok()?;
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;

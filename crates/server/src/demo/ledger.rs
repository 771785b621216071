//! The figures at the end and what they say about the promises. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::api::{Attempt, Call, Moment, moment};
use super::history::Span;
use super::screen::count;

/// A message that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) destination: &'static str,
    /// When its acceptance was known here.
    pub(crate) at: Moment,
}

/// The destination's log, sorted out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deliveries {
    /// How often each id was answered 2xx.
    times: HashMap<String, u64>,
}

impl Deliveries {
    /// Counts the 2xx answers of each id.
    pub(crate) fn read(calls: &[Call]) -> Self {
        let mut times: HashMap<String, u64> = HashMap::new();
        for call in calls {
            if let (Some(id), Some(200..300)) = (&call.id, call.status) {
                *times.entry(id.clone()).or_default() += 1;
            }
        }
        Self { times }
    }

    /// Gives the accepted messages that no call delivered.
    pub(crate) fn missing<'a>(&self, accepted: &'a [Accepted]) -> Vec<&'a Accepted> {
        let missing = |accepted: &&Accepted| !self.times.contains_key(&accepted.id);
        accepted.iter().filter(missing).collect()
    }

    /// Gives the ids that were delivered more than once, and how often.
    pub(crate) fn repeated(&self) -> BTreeMap<&str, u64> {
        let repeated = self.times.iter().filter(|(_, times)| **times > 1);
        repeated.map(|(id, times)| (id.as_str(), *times)).collect()
    }

    /// Counts the accepted messages that were delivered.
    pub(crate) fn delivered(&self, accepted: &[Accepted]) -> u64 {
        let missing = self.missing(accepted).len();
        u64::try_from(accepted.len() - missing).unwrap_or(u64::MAX)
    }
}

/// Gives the calls to a destination that arrived while its circuit was open.
pub(crate) fn calls_in<'a>(
    calls: &'a [Call],
    destination: &str,
    spans: &[Span],
) -> Vec<(&'a Call, Span)> {
    let to_it = calls.iter().filter(|call| call.listener == destination);
    let inside = |call: &'a Call| {
        let at = moment(Some(&call.at))?;
        // The edges belong to the trip and to the probe: both sides write whole milliseconds.
        let span = spans.iter().find(|span| span.from < at && at < span.to)?;
        Some((call, *span))
    };
    to_it.filter_map(inside).collect()
}

/// Tells whether a call was under way when the circuit opened: its attempt began before.
pub(crate) fn was_in_flight(call: &Call, span: Span, attempts: &[Attempt]) -> bool {
    let its = attempts
        .iter()
        .filter(|attempt| Some(attempt.attempt) == call.attempt);
    let mut began = its.filter_map(|attempt| moment(attempt.started_at.as_deref()));
    began.any(|began| began <= span.from)
}

/// Tells whether each repeated delivery has a recorded cause: all but one of the attempts behind it
/// ended otherwise than in success.
pub(crate) fn has_cause(times: u64, attempts: &[Attempt]) -> bool {
    let unsettled = attempts.iter().filter(|attempt| {
        let outcome = attempt.outcome.as_deref();
        outcome.is_some_and(|outcome| outcome != "completed")
    });
    u64::try_from(unsettled.count()).is_ok_and(|unsettled| unsettled + 1 >= times)
}

/// Counts the attempts that an outage took from a message: failed for want of the destination,
/// counted, and not given back.
pub(crate) fn burned(attempts: &[Attempt]) -> u64 {
    let taken = attempts.iter().filter(|attempt| {
        let unreachable = attempt.outcome.as_deref() == Some("unreachable")
            || attempt.class.as_deref() == Some("unavailable");
        unreachable && attempt.counted && !attempt.refunded
    });
    u64::try_from(taken.count()).unwrap_or(u64::MAX)
}

/// Chooses the messages whose attempts are looked at: those whose calls were left without an answer
/// first, then those accepted during the outage, evenly.
pub(crate) fn sample(
    calls: &[Call],
    accepted: &[Accepted],
    destination: &str,
    outage: Span,
    limit: usize,
) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    let to_it = calls.iter().filter(|call| call.listener == destination);
    for call in to_it.filter(|call| call.status.is_none()) {
        if let Some(id) = call.id.as_ref().filter(|_| chosen.len() < limit / 2)
            && known.insert(id.clone())
        {
            chosen.push(id.clone());
        }
    }
    let waited: Vec<&Accepted> = accepted
        .iter()
        .filter(|accepted| accepted.destination == destination)
        .filter(|accepted| outage.from <= accepted.at && accepted.at <= outage.to)
        .collect();
    let step = waited.len().div_ceil(limit - limit / 2).max(1);
    for accepted in waited.iter().step_by(step) {
        if known.insert(accepted.id.clone()) {
            chosen.push(accepted.id.clone());
        }
    }
    chosen
}

/// Counts what the other destinations were sent and delivered during the outage.
pub(crate) fn meanwhile(
    calls: &[Call],
    accepted: &[Accepted],
    down: &str,
    outage: Span,
) -> (u64, u64) {
    let inside = |at: Moment| outage.from <= at && at <= outage.to;
    let sent: HashSet<&str> = accepted
        .iter()
        .filter(|accepted| accepted.destination != down && inside(accepted.at))
        .map(|accepted| accepted.id.as_str())
        .collect();
    let delivered: HashSet<&str> = calls
        .iter()
        .filter(|call| matches!(call.status, Some(200..300)))
        .filter(|call| moment(Some(&call.at)).is_some_and(inside))
        .filter_map(|call| call.id.as_deref())
        .filter(|id| sent.contains(id))
        .collect();
    let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    (number(sent.len()), number(delivered.len()))
}

/// Everything the verdict rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Messages the demo set out to send.
    pub(crate) total: u64,
    /// Messages accepted, by the ids in the answers.
    pub(crate) accepted: u64,
    /// The sum over all states, by the API.
    pub(crate) in_states: u64,
    /// Accepted messages with a 2xx in the destination's log.
    pub(crate) delivered: u64,
    /// Accepted messages that were neither delivered nor are still held.
    pub(crate) lost: u64,
    /// Accepted messages that still wait, run or are parked.
    pub(crate) unfinished: u64,
    /// Ids delivered more than once.
    pub(crate) duplicates: u64,
    /// Of these, without a recorded cause.
    pub(crate) duplicates_without_cause: u64,
    /// Messages given up.
    pub(crate) dead: u64,
    /// Messages parked.
    pub(crate) parked: u64,
    /// Attempts made, by the API.
    pub(crate) attempts: u64,
    /// Attempts given back, by the API.
    pub(crate) refunded: u64,
    /// Messages whose attempts were looked at one by one.
    pub(crate) sampled: u64,
    /// Attempts of those that the outage took for good.
    pub(crate) burned: u64,
    /// Calls that arrived while the circuit was open and had not been under way.
    pub(crate) calls_while_open: u64,
    /// Calls that arrived then but had been under way.
    pub(crate) in_flight: u64,
    /// How much of the time of the outage the circuit was seen open, in milliseconds.
    pub(crate) open_ms: u64,
    /// From the outage to the trip.
    pub(crate) detect_ms: Option<u64>,
    /// From the destination's return to its empty lane.
    pub(crate) drain_ms: Option<u64>,
    /// From the destination's return to the closed circuit.
    pub(crate) close_ms: Option<u64>,
    /// Whether traffic was let in gradually.
    pub(crate) ramped: bool,
    /// Messages sent to the other destinations during the outage.
    pub(crate) others_sent: u64,
    /// Of these, delivered during the outage.
    pub(crate) others_delivered: u64,
}

/// What became of one promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) promise: &'static str,
    pub(crate) kept: bool,
    pub(crate) because: String,
}

impl Verdict {
    /// Writes it as one line of at most 80 columns.
    pub(crate) fn line(&self) -> String {
        let word = if self.kept { "ok" } else { "BROKEN" };
        let text = format!("{word:<7} {:<26} {}", self.promise, self.because);
        super::screen::cut(&text, super::screen::WIDTH_MAX)
    }
}

/// Judges the figures, one verdict for each promise.
pub(crate) fn judge(figures: &Figures) -> Vec<Verdict> {
    let mut verdicts = judge_messages(figures);
    verdicts.extend(judge_outage(figures));
    verdicts
}

const fn verdict(promise: &'static str, kept: bool, because: String) -> Verdict {
    Verdict {
        promise,
        kept,
        because,
    }
}

/// Judges what became of the messages.
fn judge_messages(f: &Figures) -> Vec<Verdict> {
    let (accepted, in_states) = (count(f.accepted), count(f.in_states));
    let (delivered, lost) = (count(f.delivered), count(f.lost));
    vec![
        verdict(
            "accepted means kept",
            f.accepted == f.total && f.in_states == f.accepted,
            format!("{accepted} accepted, {in_states} in all states"),
        ),
        verdict(
            "nothing is lost",
            f.lost == 0 && f.unfinished == 0 && f.delivered + f.dead == f.accepted,
            format!(
                "{delivered} delivered, {lost} lost, {} not done",
                count(f.unfinished)
            ),
        ),
        verdict(
            "a duplicate has a cause",
            f.duplicates_without_cause == 0,
            format!(
                "{} duplicates, {} unexplained",
                f.duplicates, f.duplicates_without_cause
            ),
        ),
        verdict(
            "an outage kills nothing",
            f.dead == 0 && f.parked == 0,
            format!("{} dead, {} parked", count(f.dead), count(f.parked)),
        ),
    ]
}

/// Judges how the outage was lived through.
fn judge_outage(f: &Figures) -> Vec<Verdict> {
    let others_kept = f.others_delivered * 10 >= f.others_sent * 8 && f.others_sent > 0;
    let healed = f.detect_ms.is_some() && f.close_ms.is_some() && f.drain_ms.is_some();
    vec![
        verdict(
            "open means no calls",
            f.calls_while_open == 0 && f.open_ms > 0,
            format!(
                "{} calls in {} open, {} under way before",
                f.calls_while_open,
                seconds(Some(f.open_ms)),
                f.in_flight
            ),
        ),
        verdict(
            "waiting costs no attempts",
            f.burned == 0 && f.sampled > 0,
            format!("{} of {} messages looked at lost one", f.burned, f.sampled),
        ),
        verdict(
            "the others flow on",
            others_kept,
            format!(
                "{} of {} delivered meanwhile",
                count(f.others_delivered),
                count(f.others_sent)
            ),
        ),
        verdict(
            "it heals by itself",
            healed && f.ramped,
            format!(
                "{}closed in {}, drained in {}",
                if f.ramped { "" } else { "no ramp, " },
                seconds(f.close_ms),
                seconds(f.drain_ms)
            ),
        ),
    ]
}

/// Writes the figures, two to a line.
pub(crate) fn table(figures: &Figures) -> Vec<String> {
    let pairs = [
        ("accepted", count(figures.accepted)),
        ("delivered", count(figures.delivered)),
        ("lost", count(figures.lost)),
        ("duplicates", count(figures.duplicates)),
        ("dead", count(figures.dead)),
        ("attempts made", count(figures.attempts)),
        ("attempts refunded", count(figures.refunded)),
        ("calls made while open", count(figures.calls_while_open)),
        ("time to detect", seconds(figures.detect_ms)),
        ("time to drain", seconds(figures.drain_ms)),
    ];
    let cell = |(name, value): &(&str, String)| format!("{name:<22}{value:>10}");
    let mut lines = Vec::new();
    for pair in pairs.chunks(2) {
        let cells: Vec<String> = pair.iter().map(cell).collect();
        lines.push(format!("  {}", cells.join("      ")));
    }
    lines
}

fn seconds(millis: Option<u64>) -> String {
    match millis {
        Some(millis) if millis < 1_000 => format!("{millis}ms"),
        Some(millis) => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        None => "never".to_owned(),
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;

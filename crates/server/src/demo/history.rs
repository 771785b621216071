//! What a circuit went through, pieced together from looks at it. Pure.

use super::api::{Circuit, Moment, moment, whole};

/// The word for where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// Traffic flows.
    #[default]
    Closed,
    /// Nothing is called.
    Open,
    /// One probe is under way.
    HalfOpen,
    /// Traffic climbs.
    Ramping,
}

impl State {
    /// Reads the API's word; one it does not know is nothing.
    pub(crate) fn read(word: &str) -> Option<Self> {
        match word {
            "closed" => Some(Self::Closed),
            "open" => Some(Self::Open),
            "half_open" => Some(Self::HalfOpen),
            "ramping" => Some(Self::Ramping),
            _ => None,
        }
    }

    /// Gives the word a person reads.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half open",
            Self::Ramping => "ramping",
        }
    }
}

/// A time through which the circuit was open for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its beginning, by the API.
    pub(crate) from: Moment,
    /// The last moment at which it was seen to hold, or the probe that ended it.
    pub(crate) to: Moment,
}

/// The history of one circuit.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Where it stands.
    pub(crate) state: State,
    /// The times it was open.
    pub(crate) spans: Vec<Span>,
    /// When it first opened.
    pub(crate) opened_at: Option<Moment>,
    /// When it last became closed after having been open.
    pub(crate) closed_at: Option<Moment>,
    /// Whether traffic was ever let in gradually.
    pub(crate) ramped: bool,
    key: Option<(Option<Moment>, Option<Moment>)>,
    rate: u64,
}

impl History {
    /// Takes in one look, asked for at a moment, and gives what is worth telling.
    pub(crate) fn look(&mut self, asked_at: Moment, circuit: &Circuit) -> Vec<String> {
        let Some(state) = State::read(&circuit.state) else {
            return Vec::new();
        };
        let since = moment(circuit.since.as_deref());
        let before = self.state;
        self.state = state;
        let told = match state {
            State::Open => self.look_open(asked_at, before, circuit),
            State::HalfOpen => {
                if let (State::Open, Some(span), Some(since)) =
                    (before, self.spans.last_mut(), since)
                {
                    // No circuit re-opens and half-opens again between two looks: `open_for` is longer.
                    span.to = span.to.max(since);
                }
                self.key = None;
                (before != state).then(|| format!("a probe goes out to {}", circuit.id))
            }
            State::Ramping => {
                self.key = None;
                self.ramped = true;
                self.look_ramping(before, circuit)
            }
            State::Closed => {
                self.key = None;
                (before != state).then(|| {
                    self.closed_at = Some(since.unwrap_or(asked_at));
                    format!("circuit {} closed", circuit.id)
                })
            }
        };
        told.into_iter().collect()
    }

    fn look_open(&mut self, asked: Moment, before: State, circuit: &Circuit) -> Option<String> {
        let since = moment(circuit.since.as_deref());
        let key = (since, moment(circuit.next_probe_at.as_deref()));
        if self.key == Some(key) {
            if let Some(span) = self.spans.last_mut() {
                span.to = span.to.max(asked);
            }
            return None;
        }
        // A probe may have gone out and failed between two looks. It moves the next one; where the
        // API counts `since` from the trip all the same, the time before this look is in doubt.
        let known = self.spans.last().map(|span| span.from);
        let fresh = since.filter(|since| known.is_none_or(|known| *since > known));
        let from = fresh.unwrap_or(asked).min(asked);
        self.spans.push(Span { from, to: asked });
        let first = self.opened_at.is_none();
        self.opened_at.get_or_insert(from);
        let probe_failed = self.key.is_some() || before == State::HalfOpen;
        self.key = Some(key);
        let id = &circuit.id;
        if first || before == State::Closed || before == State::Ramping {
            let failures = circuit.failures.as_u64().filter(|failures| *failures > 0);
            let because = match (failures, &circuit.reason) {
                (Some(failures), _) => format!(" after {failures} failures"),
                (None, Some(reason)) => format!(": {reason}"),
                (None, None) => String::new(),
            };
            Some(format!("circuit {id} opened{because}"))
        } else {
            probe_failed.then(|| format!("the probe to {id} failed, circuit open again"))
        }
    }

    /// Tells the start of a climb, and each doubling of its rate.
    fn look_ramping(&mut self, before: State, circuit: &Circuit) -> Option<String> {
        let rate = &circuit.ramp["rate"];
        let text = rate.as_str().and_then(|text| text.split('/').next());
        let rate = rate.as_f64().or_else(|| text?.parse().ok());
        let rate = rate.map(whole);
        let id = &circuit.id;
        if before != State::Ramping {
            self.rate = rate.unwrap_or(0);
            return Some(match rate {
                Some(rate) => format!("the probe to {id} succeeded, ramp starts at {rate}/s"),
                None => format!("the probe to {id} succeeded, the ramp starts"),
            });
        }
        let rate = rate.filter(|rate| *rate >= self.rate.saturating_mul(2).max(2))?;
        self.rate = rate;
        Some(format!("ramp {rate}/s to {id}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn date(at: Moment) -> String {
        let date = jiff::Timestamp::from_millisecond(at).expect("it is in range");
        date.to_string()
    }

    fn circuit(state: &str, since: Moment, next_probe_at: Option<Moment>) -> Circuit {
        serde_json::from_value(json!({
            "id": "smtp",
            "state": state,
            "since": date(since),
            "failures": 5,
            "next_probe_at": next_probe_at.map(date),
            "ramp": {"rate": 40.0, "of": 300},
        }))
        .expect("it is well formed")
    }

    #[test]
    fn an_outage_is_told_from_trip_to_close_and_its_open_times_are_known() {
        let mut history = History::default();
        let mut told = Vec::new();
        for (asked_at, state, since, next) in [
            (1_000, "closed", 0, None),
            (1_250, "open", 1_100, Some(3_100)),
            (3_000, "open", 1_100, Some(3_100)),
            (3_250, "half_open", 3_105, None),
            (3_500, "open", 3_300, Some(5_300)),
            (5_250, "open", 3_300, Some(5_300)),
            (5_500, "ramping", 5_310, None),
            (9_000, "closed", 8_900, None),
        ] {
            told.extend(history.look(asked_at, &circuit(state, since, next)));
        }
        let expected = [
            "circuit smtp opened after 5 failures",
            "a probe goes out to smtp",
            "the probe to smtp failed, circuit open again",
            "the probe to smtp succeeded, ramp starts at 40/s",
            "circuit smtp closed",
        ];
        assert_eq!(told, expected);
        let span = |from, to| Span { from, to };
        assert_eq!(history.spans, [span(1_100, 3_105), span(3_300, 5_250)]);
        assert_eq!(history.opened_at, Some(1_100));
        assert_eq!(history.closed_at, Some(8_900));
        assert!(history.ramped);
    }

    #[test]
    fn a_probe_that_failed_between_two_looks_leaves_a_gap_where_since_did_not_move() {
        let mut history = History::default();
        history.look(1_250, &circuit("open", 1_100, Some(3_100)));
        history.look(3_000, &circuit("open", 1_100, Some(3_100)));
        history.look(3_250, &circuit("open", 1_100, Some(5_200)));
        history.look(3_500, &circuit("open", 1_100, Some(5_200)));
        let span = |from, to| Span { from, to };
        assert_eq!(history.spans, [span(1_100, 3_000), span(3_250, 3_500)]);
    }

    #[test]
    fn a_circuit_that_stays_closed_tells_nothing() {
        let mut history = History::default();
        for asked_at in [1_000, 2_000] {
            let told = history.look(asked_at, &circuit("closed", 0, None));
            assert!(told.is_empty(), "{told:?}");
        }
        assert!(history.spans.is_empty());
        assert_eq!(history.closed_at, None);
    }
}

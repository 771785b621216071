//! The tour itself: submit, let a destination die and come back, look on, and count.
//!
//! ```text
//!  submit ──▶ server ──▶ destination ◀── outage
//!                └────── look ─────┘ ──▶ screen
//! ```

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::api::{Api, Call, Draft, Moment, moment};
use super::history::{History, Span, State};
use super::ledger::{self, Accepted, Deliveries, Figures};
use super::screen::{Event, Row, View, count};
use super::terminal::Terminal;
use super::{DESTINATIONS, VICTIM};

/// The most messages in one batch, by the API.
const BATCH_MAX: usize = 1_000;
/// How often the submitter looks what is due.
const SUBMIT_EVERY: Duration = Duration::from_millis(100);
/// How many looks may fail in a row before the demo gives up.
const MISSES_MAX: u32 = 20;
/// How many messages are looked at one by one, of each sort.
const SAMPLE_MAX: usize = 150;
/// How many events may wait to be shown.
const EVENTS_MAX: usize = 64;

/// When what happens.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many messages.
    pub(crate) messages: usize,
    /// Over which time they are submitted.
    pub(crate) submit_for: Duration,
    /// When the destination dies.
    pub(crate) down_at: Duration,
    /// When it takes connections again, only to reset them: a call would now show in its log.
    pub(crate) reset_at: Duration,
    /// When it is back.
    pub(crate) up_at: Duration,
    /// When the demo stops waiting.
    pub(crate) deadline: Duration,
    /// How often it looks.
    pub(crate) look_every: Duration,
}

/// A tour of one server and one destination.
#[derive(Debug)]
pub(crate) struct Tour {
    /// Whom it speaks to.
    pub(crate) api: Api,
    /// When what happens.
    pub(crate) plan: Plan,
    /// What makes this run's idempotency keys its own.
    pub(crate) run: String,
    /// When it began.
    pub(crate) started: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    accepted: usize,
    up: bool,
}

/// What was seen of the victim's circuit, and the last view.
struct Seen {
    view: View,
    history: History,
    called: Vec<u64>,
    seconds: u64,
    drained: bool,
}

impl Tour {
    /// Runs the tour and gives its figures.
    ///
    /// # Errors
    /// Fails where the server or the destination stops answering.
    pub(crate) async fn go(&self, terminal: &mut Terminal) -> anyhow::Result<Figures> {
        let (progress, watched) = watch::channel(Progress::default());
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let (accepted, outage, seen) = tokio::try_join!(
            self.submit(&progress),
            self.outage(&progress, tell),
            self.look(watched, told, terminal)
        )?;
        self.count(&accepted, outage, &seen.history).await
    }

    /// Submits at a steady pace: one message alone and the rest of what is due as a batch.
    async fn submit(&self, progress: &watch::Sender<Progress>) -> anyhow::Result<Vec<Accepted>> {
        let mut accepted: Vec<Accepted> = Vec::with_capacity(self.plan.messages);
        while accepted.len() < self.plan.messages {
            let share = self.started.elapsed().as_secs_f64() / self.plan.submit_for.as_secs_f64();
            let due = portion(self.plan.messages, share);
            let number = due.saturating_sub(accepted.len()).min(BATCH_MAX + 1);
            if number == 0 {
                sleep(SUBMIT_EVERY).await;
                continue;
            }
            let first = accepted.len();
            let drafts: Vec<Draft> = (first..first + number).map(|n| self.draft(n)).collect();
            let mut ids = Vec::with_capacity(number);
            if let Some((alone, batch)) = drafts.split_first() {
                ids.push(self.api.submit(alone).await?);
                if !batch.is_empty() {
                    ids.extend(self.api.submit_batch(batch).await?);
                }
            }
            let at = now();
            for (number, id) in (first..).zip(ids) {
                accepted.push(Accepted {
                    id,
                    destination: destination_of(number).name,
                    at,
                });
            }
            progress.send_modify(|progress| progress.accepted = accepted.len());
            sleep(SUBMIT_EVERY).await;
        }
        Ok(accepted)
    }

    fn draft(&self, number: usize) -> Draft {
        Draft {
            kind: destination_of(number).kind,
            idempotency_key: format!("demo-{}-{number}", self.run),
            payload: json!({
                "number": number,
                "to": format!("reader-{number}@example.org"),
                "text": "your parcel is on its way, and so is this message",
            }),
        }
    }

    /// Lets the victim die, come half back, and come back.
    async fn outage(
        &self,
        progress: &watch::Sender<Progress>,
        tell: mpsc::Sender<String>,
    ) -> anyhow::Result<Span> {
        let mut span = Span { from: 0, to: 0 };
        sleep_until(self.started + self.plan.down_at).await;
        span.from = now();
        self.turn(json!({"listener": VICTIM, "down": "refuse"}))
            .await?;
        // Whoever listened has gone: then nobody is left to be told.
        drop(
            tell.send(format!("{VICTIM} dies: it refuses connections"))
                .await,
        );
        sleep_until(self.started + self.plan.reset_at).await;
        self.turn(json!({"listener": VICTIM, "down": "reset"}))
            .await?;
        let half = format!("{VICTIM} takes connections again, and resets every one");
        drop(tell.send(half).await);
        sleep_until(self.started + self.plan.up_at).await;
        self.turn(json!({"listener": VICTIM, "up": true})).await?;
        span.to = now();
        drop(tell.send(format!("{VICTIM} is back")).await);
        progress.send_modify(|progress| progress.up = true);
        Ok(span)
    }

    async fn turn(&self, change: Value) -> anyhow::Result<()> {
        self.api.tell(change).await
    }

    /// Looks on and draws until everything is delivered and the circuit closed, or time is up.
    async fn look(
        &self,
        watched: watch::Receiver<Progress>,
        mut told: mpsc::Receiver<String>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Seen> {
        let mut seen = Seen::new(self.plan.messages);
        let mut ticks = interval(self.plan.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut misses = 0;
        loop {
            ticks.tick().await;
            let progress = *watched.borrow();
            seen.view.elapsed = self.started.elapsed();
            seen.view.accepted = number(progress.accepted);
            while let Ok(text) = told.try_recv() {
                seen.event(text);
            }
            match self.look_once(&mut seen).await {
                Ok(()) => misses = 0,
                Err(error) => {
                    misses += 1;
                    seen.event(format!("no answer: {error:#}"));
                    if misses == MISSES_MAX {
                        return Err(error.context("the server or the destination is gone"));
                    }
                }
            }
            let submitted = progress.accepted == self.plan.messages;
            let rest: u64 = seen
                .view
                .rows
                .iter()
                .map(|row| row.waiting + row.leased)
                .sum();
            let healed = seen.history.state == State::Closed;
            let finished = submitted && progress.up && misses == 0 && rest == 0 && healed;
            seen.note_drained(progress.up);
            terminal.draw(&seen.view, finished);
            if finished || seen.view.elapsed > self.plan.deadline && submitted && progress.up {
                return Ok(seen);
            }
        }
    }

    async fn look_once(&self, seen: &mut Seen) -> anyhow::Result<()> {
        let asked_at = now();
        let circuits = self.api.circuits().await?;
        for circuit in &circuits {
            let name = circuit.id.as_str();
            if let Some(row) = seen
                .view
                .rows
                .iter_mut()
                .find(|row| row.destination == name)
            {
                row.state = State::read(&circuit.state).unwrap_or(row.state);
            }
            if name == VICTIM {
                for text in seen.history.look(asked_at, circuit) {
                    seen.event(text);
                }
            }
        }
        let lanes = self.api.lanes().await?;
        let metrics = self.api.metrics().await?;
        for (row, destination) in seen.view.rows.iter_mut().zip(&DESTINATIONS) {
            let its = || {
                lanes
                    .iter()
                    .filter(|lane| lane.destination == row.destination)
            };
            row.waiting = its().map(|lane| lane.waiting).sum();
            row.leased = its().map(|lane| lane.leased).sum();
            let labels = [("kind", destination.kind), ("state", "completed")];
            row.completed = metrics.sum("waystation_messages", &labels);
        }
        seen.count_calls(&self.api.summary().await?);
        Ok(())
    }

    /// Reads everything back, from the API and from the destination's own log.
    async fn count(
        &self,
        accepted: &[Accepted],
        outage: Span,
        history: &History,
    ) -> anyhow::Result<Figures> {
        let calls = self.api.log().await?;
        let metrics = self.api.metrics().await?;
        let lanes = self.api.lanes().await?;
        let deliveries = Deliveries::read(&calls);
        let (others_sent, others_delivered) = ledger::meanwhile(&calls, accepted, VICTIM, outage);
        let mut figures = Figures {
            total: number(self.plan.messages),
            accepted: number(accepted.len()),
            in_states: metrics.sum("waystation_messages", &[]),
            delivered: deliveries.delivered(accepted),
            dead: lanes.iter().map(|lane| lane.dead).sum(),
            parked: lanes.iter().map(|lane| lane.parked).sum(),
            attempts: metrics.sum("waystation_attempts_total", &[]),
            refunded: metrics.sum("waystation_refunded_attempts_total", &[]),
            open_ms: history
                .spans
                .iter()
                .map(|span| between(span.from, span.to))
                .sum(),
            detect_ms: history.opened_at.map(|at| between(outage.from, at)),
            drain_ms: drained_at(&calls, accepted, outage).map(|at| between(outage.to, at)),
            close_ms: history.closed_at.map(|at| between(outage.to, at)),
            ramped: history.ramped,
            others_sent,
            others_delivered,
            ..Figures::default()
        };
        self.trace_missing(&mut figures, &deliveries, accepted)
            .await?;
        self.trace_duplicates(&mut figures, &deliveries).await?;
        self.trace_open(&mut figures, &calls, &history.spans)
            .await?;
        for id in ledger::sample(&calls, accepted, VICTIM, outage, SAMPLE_MAX) {
            let burned = ledger::burned(&self.api.attempts(&id).await?);
            figures.sampled += 1;
            figures.burned += burned;
        }
        Ok(figures)
    }

    async fn trace_missing(
        &self,
        figures: &mut Figures,
        deliveries: &Deliveries,
        accepted: &[Accepted],
    ) -> anyhow::Result<()> {
        let missing = deliveries.missing(accepted);
        for accepted in missing.iter().take(SAMPLE_MAX) {
            match self.api.state(&accepted.id).await?.as_deref() {
                Some("dead") => {}
                Some("waiting" | "leased" | "parked") => figures.unfinished += 1,
                Some(_) | None => figures.lost += 1,
            }
        }
        // Beyond the sample nobody was asked; that they are not done is certain.
        figures.unfinished += number(missing.len().saturating_sub(SAMPLE_MAX));
        Ok(())
    }

    async fn trace_duplicates(
        &self,
        figures: &mut Figures,
        deliveries: &Deliveries,
    ) -> anyhow::Result<()> {
        let repeated = deliveries.repeated();
        figures.duplicates = number(repeated.len());
        for (id, times) in repeated.iter().take(SAMPLE_MAX) {
            let attempts = self.api.attempts(id).await?;
            figures.duplicates_without_cause += u64::from(!ledger::has_cause(*times, &attempts));
        }
        Ok(())
    }

    async fn trace_open(
        &self,
        figures: &mut Figures,
        calls: &[Call],
        spans: &[Span],
    ) -> anyhow::Result<()> {
        let inside = ledger::calls_in(calls, VICTIM, spans);
        for (call, span) in inside.iter().take(SAMPLE_MAX) {
            let attempts = match &call.id {
                Some(id) => self.api.attempts(id).await?,
                None => Vec::new(),
            };
            if ledger::was_in_flight(call, *span, &attempts) {
                figures.in_flight += 1;
            } else {
                figures.calls_while_open += 1;
            }
        }
        figures.calls_while_open += number(inside.len().saturating_sub(SAMPLE_MAX));
        Ok(())
    }
}

impl Seen {
    fn new(messages: usize) -> Self {
        let row = |destination: &super::Destination| Row {
            destination: destination.name,
            ..Row::default()
        };
        Self {
            view: View {
                total: number(messages),
                rows: DESTINATIONS.iter().map(row).collect(),
                ..View::default()
            },
            history: History::default(),
            called: vec![0; DESTINATIONS.len()],
            seconds: 0,
            drained: false,
        }
    }

    fn event(&mut self, text: String) {
        let at = self.view.elapsed;
        self.view.events.push(Event { at, text });
    }

    fn note_drained(&mut self, up: bool) {
        let row = self.view.rows.iter().find(|row| row.destination == VICTIM);
        if up && !self.drained && row.is_some_and(|row| row.waiting == 0) {
            self.drained = true;
            let done = row.map_or(0, |row| row.completed);
            let done = count(done);
            self.event(format!("{VICTIM} drained: nothing waits, {done} completed"));
        }
    }

    /// Turns the destination's counts into calls in each whole second.
    fn count_calls(&mut self, summary: &Value) {
        let seconds = self.view.elapsed.as_secs();
        let passed = seconds.saturating_sub(self.seconds);
        if passed == 0 {
            return;
        }
        self.seconds = seconds;
        let paths = summary["paths"].as_array().map_or(&[][..], Vec::as_slice);
        for (row, called) in self.view.rows.iter_mut().zip(&mut self.called) {
            let its = paths
                .iter()
                .filter(|path| path["listener"] == row.destination);
            let calls: u64 = its.filter_map(|path| path["calls"].as_u64()).sum();
            row.calls.push(calls.saturating_sub(*called) / passed);
            *called = calls;
        }
    }
}

/// Gives when the last message that had waited for the victim was delivered.
fn drained_at(calls: &[Call], accepted: &[Accepted], outage: Span) -> Option<Moment> {
    let waited = |accepted: &&Accepted| accepted.destination == VICTIM && accepted.at <= outage.to;
    let waited: std::collections::HashSet<&str> = accepted
        .iter()
        .filter(waited)
        .map(|accepted| accepted.id.as_str())
        .collect();
    let delivered = calls
        .iter()
        .filter(|call| matches!(call.status, Some(200..300)))
        .filter(|call| call.id.as_deref().is_some_and(|id| waited.contains(id)));
    delivered.filter_map(|call| moment(Some(&call.at))).max()
}

fn destination_of(number: usize) -> &'static super::Destination {
    &DESTINATIONS[number % DESTINATIONS.len()]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of at most a hundred thousand messages is exact in an f64"
)]
fn portion(of: usize, share: f64) -> usize {
    (of as f64 * share.clamp(0.0, 1.0)) as usize
}

fn number(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

fn between(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

/// Reads the wall clock, in which the API and the destination's log write their times.
fn now() -> Moment {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
#[path = "tour_tests.rs"]
mod tests;

//! What a claim costs SQLite with 100 thousand waiting, with a million, and with a million behind an open
//! circuit; and what the trip writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use waystation::Station;
use waystation_core::decide::{Case, decide};
use waystation_core::exchange::{
    AttemptEnd, ClaimRequest, ClaimWhat, Delivery, Evidence, SettleRequest, Settlement,
};
use waystation_core::message::NodeId;
use waystation_core::name::Destination;
use waystation_core::outcome::{Failure, Finding, Outcome, Verdict};
use waystation_core::policy::{KindPolicy, Policies};
use waystation_core::time::{Roll, Timestamp};
use waystation_store::Store;

use super::work::{self, Lanes, Producers};
use crate::baseline::folder;
use crate::meter::{Cost, Meter};
use crate::report::{Report, Wanted, median};

const FEW: u64 = 100_000;
const MANY: u64 = 1_000_000;
/// Messages of kinds that the trip does not touch, so that claims find something in all three cases.
const FREE: u64 = 16_000;
/// How many claims are measured in each case; the middle one counts.
const CLAIMS: usize = 15;
/// What each claim asks for.
const ROOM: u32 = 256;
const LEASE: Duration = Duration::from_secs(600);
const PRODUCERS: Producers = Producers {
    count: 2,
    batch: 1_000,
};

/// A store that is claimed from directly, by one node.
struct Bench {
    store: Arc<dyn Store>,
    station: Station,
    node: NodeId,
    policies: Arc<Policies>,
    meter: Meter,
}

/// The middle cost of some claims, and the last one's deliveries.
struct Claims {
    vm_steps: f64,
    pages: f64,
    deliveries: Vec<Delivery>,
}

/// Fills a store, measures, trips the circuit, measures again.
///
/// # Errors
/// Says what the store refused, or that a claim came back with less than it asked for.
pub async fn run() -> Result<Report> {
    let place = folder()?;
    let bench = Bench::begin(place.path()).await?;
    let behind = Lanes::new("bench", &bench.policies)?;
    let free = Lanes::new("free", &bench.policies)?;
    let began = Instant::now();
    work::submit(&bench.station, &free, FREE, PRODUCERS).await?;
    work::submit(&bench.station, &behind, FEW, PRODUCERS).await?;
    let few = bench.claims("*", CLAIMS).await?;
    work::submit(&bench.station, &behind, MANY - FEW, PRODUCERS).await?;
    let filled = began.elapsed();
    let many = bench.claims("*", CLAIMS).await?;
    let (before, trip) = bench.trip(&many.deliveries).await?;
    let shut = bench.claims("*", CLAIMS).await?;
    let nothing = bench.claim("bench.*").await?;
    ensure!(
        nothing.0.is_empty(),
        "{} messages came through an open circuit",
        nothing.0.len()
    );
    bench.station.drain(Duration::from_secs(5)).await;

    let mut report = Report::default();
    for (name, claims) in [
        ("1 M waiting", &many),
        ("1 M behind an open circuit", &shut),
    ] {
        let within = Wanted::RatioWithin(0.8, 1.2);
        let name = |what| format!("claims: {what}, {name} / 100 k");
        report.ratio(
            name("VM steps"),
            (claims.vm_steps, few.vm_steps, "steps"),
            within,
        );
        report.ratio(name("pages"), (claims.pages, few.pages, "pages"), within);
    }
    report.ratio(
        "claims: empty one, all of 1 M behind it / 100 k",
        (float(nothing.1.vm_steps), few.vm_steps, "steps"),
        Wanted::AtMost(few.vm_steps),
    );
    report.ratio(
        "trip: rows written / the failure before it",
        (float(trip.0.rows), float(before.0.rows), "rows"),
        Wanted::AtMost(float(before.0.rows) + 1.0),
    );
    report.ratio(
        "trip: gate rows written / the failure before it",
        (float(trip.1.rows), float(before.1.rows), "rows"),
        Wanted::AtMost(1.0),
    );
    report.note(format!(
        "claims: median of {CLAIMS} claims of {ROOM} each over 16 lanes, 8 of them open throughout; filled in {:.0} s",
        filled.as_secs_f64()
    ));
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Bench {
    async fn begin(folder: &std::path::Path) -> Result<Self> {
        let meter = Meter::start()?;
        let store = work::open(folder)?;
        // All kinds of `bench` share a destination, so that one trip stands before all of them.
        let down = KindPolicy {
            destination: Some(Destination::new("down")?),
            ..KindPolicy::default()
        };
        let mut policies = work::roomy(1_000_000);
        policies.kinds.push((work::pattern("bench.*")?, down));
        let begun = Station::on(Arc::clone(&store)).policies(policies);
        let station = begun.start().await.context("cannot start the station")?;
        let node = store.join("bench", station.now()).await?;
        let policies = station.policies();
        Ok(Self {
            store,
            station,
            node,
            policies,
            meter,
        })
    }

    async fn claims(&self, kinds: &str, count: usize) -> Result<Claims> {
        let (mut steps, mut pages, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (deliveries, cost) = self.claim(kinds).await?;
            ensure!(
                deliveries.len() == usize::try_from(ROOM)?,
                "a claim found {} messages",
                deliveries.len()
            );
            steps.push(float(cost.vm_steps));
            pages.push(float(cost.pages));
            last = deliveries;
        }
        Ok(Claims {
            vm_steps: median(steps).context("nothing was claimed")?,
            pages: median(pages).context("nothing was claimed")?,
            deliveries: last,
        })
    }

    async fn claim(&self, kinds: &str) -> Result<(Vec<Delivery>, Cost)> {
        let request = ClaimRequest {
            now: self.station.now(),
            node: self.node,
            worker: "bench".into(),
            what: ClaimWhat::Due {
                kinds: [work::pattern(kinds)?].into(),
                queues: [].into(),
                struck: true,
            },
            room: ROOM,
            lease: LEASE,
            tied_to_node: true,
            roll: Roll::new(0.5),
            policies: Arc::clone(&self.policies),
        };
        drop(self.meter.read());
        let claimed = self.store.claim(request).await?;
        Ok((claimed.deliveries, self.meter.read().all()))
    }

    /// Settles deliveries as unreachable, one by one, until the circuit opens; gives what the
    /// settlement before the last wrote, and the last: in all, and to gates.
    async fn trip(&self, deliveries: &[Delivery]) -> Result<((Cost, Cost), (Cost, Cost))> {
        let mut before = None;
        let of_bench =
            |delivery: &&Delivery| delivery.message.lane.destination().as_str() == "down";
        for delivery in deliveries.iter().filter(of_bench).take(20) {
            let request = self.unreachable(delivery);
            drop(self.meter.read());
            let answer = self.store.settle(request).await?;
            let work = self.meter.read();
            let gates = work.sum(|text| writes_to(text, "gate"));
            let costs = (work.all(), gates);
            if !answer.changes.is_empty() {
                return Ok((before.context("the first failure tripped")?, costs));
            }
            before = Some(costs);
        }
        anyhow::bail!("the circuit did not open")
    }

    fn unreachable(&self, delivery: &Delivery) -> SettleRequest {
        let now: Timestamp = self.station.now();
        let roll = Roll::new(0.5);
        let outcome = Outcome::Unreachable(Failure::new("connect_refused", "connection refused"));
        let case = Case {
            message: &delivery.message,
            ledger: &delivery.record.ledger,
            outcome: &outcome,
            finding: Finding::UNREACHABLE,
            gates: &delivery.gates,
            alone: false,
            probe: false,
        };
        let decision = decide(&case, &self.policies, now, roll);
        let gate = delivery.message.lane.destination_gate();
        let seen = delivery.gates.iter().find(|view| view.key == gate);
        let evidence = Evidence {
            gate,
            id: delivery.message.id,
            verdict: Verdict::Failure,
            probe: None,
            code: None,
            epoch: seen.map(|view| view.epoch).unwrap_or_default(),
            throttled: None,
            took: Duration::ZERO,
        };
        let ended = AttemptEnd {
            attempt: delivery.record.ledger.attempts,
            worker: delivery.worker.clone(),
            started_at: delivery.started_at,
            ended_at: now,
            outcome: outcome.as_str(),
            class: outcome.class(),
            failure: outcome.failure().cloned(),
            counted: decision.counted,
            refunded: decision.refunded_by.is_some(),
            cause: None,
        };
        let epochs = delivery
            .gates
            .iter()
            .map(|view| (view.key.clone(), view.epoch));
        let settlement = Settlement {
            lease: delivery.lease(),
            epochs: epochs.collect(),
            decision,
            ended: Some(ended),
            evidence: vec![evidence],
            follow_up: None,
        };
        SettleRequest {
            now,
            node: self.node,
            settlements: vec![settlement],
            roll,
            policies: Arc::clone(&self.policies),
        }
    }
}

/// Tells whether a statement writes to a table.
fn writes_to(text: &str, table: &str) -> bool {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let is = |word: Option<&&str>, wanted: &str| {
        word.is_some_and(|word| word.eq_ignore_ascii_case(wanted))
    };
    let target = if is(words.first(), "update")
        || is(words.first(), "insert")
        || is(words.first(), "delete")
    {
        // `OR REPLACE`, `INTO` and `FROM` may stand before the name.
        let fillers = ["or", "replace", "ignore", "into", "from"];
        words.iter().skip(1).find(|word| {
            !fillers
                .iter()
                .any(|filler| word.eq_ignore_ascii_case(filler))
        })
    } else {
        words.get(2).filter(|_| is(words.first(), "replace"))
    };
    is(target, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_writes_to_a_table_is_told_from_others() {
        for (text, writes) in [
            ("UPDATE gate SET state = 1", true),
            ("INSERT OR REPLACE INTO gate(key) VALUES (1)", true),
            ("REPLACE INTO gate VALUES (1)", true),
            ("DELETE FROM gate", true),
            ("UPDATE message SET gate = 1", false),
            ("SELECT * FROM gate", false),
            ("INSERT INTO gate_log VALUES (1)", false),
        ] {
            assert_eq!(writes_to(text, "gate"), writes, "{text}");
        }
    }
}

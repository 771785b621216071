//! A history as text: one line for each thing that happened, messages by their number.

use std::collections::BTreeMap;
use std::fmt;

use waystation_core::message::{Fence, MessageId};
use waystation_core::time::Timestamp;

use super::{History, Mover, Record, Row, Run, What};
use crate::plan::BEGIN;

/// Shows a history to people; looks at all rows are left out but for what is not at its end.
#[derive(Debug)]
pub struct Trace<'a> {
    history: &'a History,
    names: BTreeMap<MessageId, String>,
}

impl<'a> Trace<'a> {
    /// Names the messages of a history: `m7` is the producers' seventh, `f1` the first that an end
    /// caused.
    #[must_use]
    pub fn new(history: &'a History) -> Self {
        let mut names = BTreeMap::new();
        let mut caused = 0;
        for record in &history.records {
            if let What::Stored { id, order, .. } = &record.what {
                let name = order.map_or_else(
                    || {
                        caused += 1;
                        format!("f{caused}")
                    },
                    |order| format!("m{order}"),
                );
                names.insert(*id, name);
            }
        }
        Self { history, names }
    }

    /// Puts the names of messages in the place of their ids.
    #[must_use]
    pub fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            let id = id.to_string();
            if text.contains(&id) {
                text = text.replace(&id, name);
            }
        }
        text
    }

    fn name(&self, id: MessageId) -> &str {
        self.names.get(&id).map_or("?", String::as_str)
    }

    fn lease(&self, id: MessageId, fence: Fence) -> String {
        format!("{} fence {}", self.name(id), fence.0)
    }

    fn run(&self, run: &Run) -> String {
        let lease = self.lease(run.id, run.fence);
        format!("{lease} attempt {}.{}", run.generation, run.attempt)
    }

    fn line(&self, what: &What, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match what {
            What::Stored {
                id,
                lane,
                key,
                due_at,
                expires_at,
                ..
            } => {
                let name = self.name(*id);
                write!(f, "stored {name} in {lane}, due {}", moment(*due_at))?;
                if let Some(key) = key {
                    write!(f, ", key {}", key.as_str())?;
                }
                expires_at.map_or(Ok(()), |at| write!(f, ", expires {}", moment(at)))
            }
            What::Acked { order, id } => write!(f, "acked {} to {order}", self.name(*id)),
            What::Leased { .. } => self.leased(what, f),
            What::Extended {
                id, fence, until, ..
            } => write!(
                f,
                "extended {} until {}",
                self.lease(*id, *fence),
                moment(*until)
            ),
            What::Settled { .. } => self.settled(what, f),
            What::Ignored { id, fence } => write!(f, "too late {}", self.lease(*id, *fence)),
            What::Conflicted { id } => write!(f, "conflict {}", self.name(*id)),
            What::Expired { id } => write!(f, "expired {}", self.name(*id)),
            What::Refunded { gate, failures } => write!(f, "refunded {failures} by {gate}"),
            What::PulledForward { id, due_at } => {
                write!(
                    f,
                    "pulled forward {} to {}",
                    self.name(*id),
                    moment(*due_at)
                )
            }
            What::Operated {
                id, verb, state, ..
            } => write!(f, "person: {verb:?} {}, now {state:?}", self.name(*id)),
            What::Started { run, node } => write!(f, "started {} on {}", self.run(run), node.0),
            What::Ended {
                run,
                outcome,
                against,
                ..
            } => write!(f, "ended {} {outcome}, against {against:?}", self.run(run)),
            What::Seen { rows, counts } => {
                write!(f, "looked: {counts:?}")?;
                let open = rows.iter().filter(|row| !row.state.is_end());
                open.take(20).try_for_each(|row| self.row(row, f))
            }
            What::Gate { .. }
            | What::Ordered { .. }
            | What::Joined { .. }
            | What::Stepped { .. }
            | What::Draining { .. }
            | What::Fault { .. }
            | What::Gone { .. }
            | What::Quiet
            | What::Over { .. } => surroundings(what, f),
        }
    }

    fn leased(&self, what: &What, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let What::Leased {
            run,
            worker,
            until,
            told,
            purpose,
            probes,
            standing,
            ..
        } = what
        else {
            return Ok(());
        };
        let run = self.run(run);
        write!(f, "leased {run} to {worker} until {}", moment(*until))?;
        write!(f, ", {purpose:?}, {standing:?}")?;
        if !probes.is_empty() {
            write!(f, ", probes {probes:?}")?;
        }
        f.write_str(if *told { "" } else { ", answer lost" })
    }

    fn settled(&self, what: &What, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let What::Settled {
            id,
            fence,
            outcome,
            state,
            due_at,
            death,
            strikes,
            counted,
            ..
        } = what
        else {
            return Ok(());
        };
        let lease = self.lease(*id, *fence);
        write!(f, "settled {lease} {} as {state:?}", outcome.unwrap_or("-"))?;
        if let Some(death) = death {
            write!(f, " of {}", death.as_str())?;
        }
        if let Some(due_at) = due_at {
            write!(f, " due {}", moment(*due_at))?;
        }
        if strikes.0 > 0 {
            write!(f, ", strikes {} ({} alone)", strikes.0, strikes.1)?;
        }
        f.write_str(if *counted { ", counted" } else { "" })
    }

    fn row(&self, row: &Row, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name(row.id);
        let (state, standing) = (row.state, row.standing);
        let due_at = moment(row.due_at);
        write!(f, "\n{:14}{name} {state:?} {standing:?} due {due_at}", "")?;
        write!(f, ", {} attempts, {} count", row.attempts, row.counted)
    }
}

fn surroundings(what: &What, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        What::Gate {
            gate,
            from,
            to,
            epoch,
            by,
        } => {
            let by = match by {
                Mover::Evidence(_) => "evidence",
                Mover::Claim => "claim",
                Mover::Check => "health check",
                Mover::Time => "time",
                Mover::Person => "person",
            };
            write!(
                f,
                "gate {gate}: {from:?} -> {to:?}, epoch {}, {by}",
                epoch.0
            )
        }
        What::Ordered { gate, order } => write!(f, "person: {order:?} {gate}"),
        What::Joined {
            node,
            machine,
            lead,
        } => write!(
            f,
            "node {} joined on machine-{machine}, clock {lead:+} µs",
            node.0
        ),
        What::Stepped { machine, lead } => write!(f, "clock of machine-{machine} set {lead:+} µs"),
        What::Draining { node, patience } => write!(f, "node {} drains, {patience:?}", node.0),
        What::Fault { name, place, until } => {
            write!(f, "{name} ({place}) until {}", moment(*until))
        }
        What::Gone {
            node,
            noticed,
            drained,
        } => write!(
            f,
            "node {} gone, noticed {noticed}, drained {drained}",
            node.0
        ),
        What::Quiet => f.write_str("nothing goes wrong from here"),
        What::Over { .. } => f.write_str("over"),
        What::Stored { .. }
        | What::Acked { .. }
        | What::Leased { .. }
        | What::Extended { .. }
        | What::Settled { .. }
        | What::Ignored { .. }
        | What::Conflicted { .. }
        | What::Expired { .. }
        | What::Refunded { .. }
        | What::PulledForward { .. }
        | What::Operated { .. }
        | What::Started { .. }
        | What::Ended { .. }
        | What::Seen { .. } => Ok(()),
    }
}

fn moment(at: Timestamp) -> String {
    let micros = at.as_micros().saturating_sub(BEGIN.as_micros());
    format!(
        "{}.{:06}",
        micros.div_euclid(1_000_000),
        micros.rem_euclid(1_000_000)
    )
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Record { at, what } in &self.history.records {
            write!(f, "{:>13}  ", moment(*at))?;
            self.line(what, f)?;
            f.write_str("\n")?;
        }
        Ok(())
    }
}

//! Why a message stands where it stands, since when, until when, and what a person can do.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use waystation_core::gate::{GateStatus, Mode};
use waystation_core::message::State as MessageState;
use waystation_core::time::Timestamp;
use waystation_store::{LaneRow, MessageRow, View};

use super::App;
use super::lane_views::holds_back;
use super::messages::{parse_id, unknown};
use super::problem::Problem;
use super::reply::{Path, json};
use super::views::Time;
use crate::text::{rough_text, time_text};

/// What a person can do next.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Next {
    /// The request.
    command: String,
    /// What it does.
    effect: &'static str,
}

/// Why a message stands where it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// In one sentence.
    summary: String,
    /// Its state.
    state: &'static str,
    /// Since when.
    since: Option<Time>,
    /// Until when, where time alone ends it.
    until: Option<Time>,
    /// The reasons, the strongest first.
    because: Vec<String>,
    /// What a person can do.
    next: Vec<Next>,
}

/// Explains why a message stands where it stands.
#[utoipa::path(get, path = "/v1/messages/{id}/explain", tag = "looking", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = Explanation),
))]
pub(crate) async fn explain(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    let (admin, now) = (app.station.admin(), app.station.now());
    let row = admin
        .get(parse_id(&id)?, now)
        .await?
        .ok_or_else(|| unknown(&id))?;
    let lanes = admin
        .lanes(Some(row.message.lane.clone()), app.station.policies(), now)
        .await?;
    let handled = app.station.handles(row.message.lane.kind());
    Ok(json(
        StatusCode::OK,
        &explanation(&row, lanes.first(), handled, now),
    ))
}

fn explanation(
    row: &MessageRow,
    lane: Option<&LaneRow>,
    handled: bool,
    now: Timestamp,
) -> Explanation {
    let record = &row.record;
    let mut because = Vec::new();
    let mut until = None;
    let since = match record.state {
        MessageState::Waiting => {
            until = waiting(row, lane, handled, now, &mut because);
            row.last_error
                .as_ref()
                .map(|error| error.at)
                .or(Some(row.message.created_at))
        }
        MessageState::Leased => {
            if let Some((worker, expires_at)) = &row.lease {
                because.push(format!(
                    "worker {worker} has it; its lease ends at {} unless it is extended",
                    time_text(*expires_at)
                ));
                until = Some(*expires_at);
            }
            None
        }
        MessageState::Parked | MessageState::Dead | MessageState::Cancelled => {
            because.extend(
                record
                    .reason
                    .as_ref()
                    .map(|reason| format!("the reason is {reason}")),
            );
            record
                .finished_at
                .or_else(|| row.last_error.as_ref().map(|error| error.at))
        }
        MessageState::Completed => record.finished_at,
    };
    because.extend(row.last_error.as_ref().map(|error| {
        format!(
            "its latest error ({}, {}) was at {}: {}",
            error.class.as_str(),
            error.code,
            time_text(error.at),
            error.message
        )
    }));
    Explanation {
        summary: summary(row, is_paused(lane, now), until, now),
        state: record.state.as_str(),
        since: since.map(Time),
        until: until.map(Time),
        because,
        next: next(row, lane, handled),
    }
}

fn is_paused(lane: Option<&LaneRow>, now: Timestamp) -> bool {
    let mut gates = lane.iter().flat_map(|lane| &lane.gates);
    gates.any(|gate| gate.paused_until.is_some_and(|until| until > now))
}

fn summary(row: &MessageRow, paused: bool, until: Option<Timestamp>, now: Timestamp) -> String {
    let ledger = &row.record.ledger;
    let waits = row.record.state == MessageState::Waiting;
    let soon = until.filter(|_| waits).map_or_else(String::new, |until| {
        format!("; goes on in {}", rough_text(until.since(now)))
    });
    let kind = row.message.lane.kind();
    let what = match row.view {
        View::Quarantined => "waits behind an open circuit; waiting there costs it no attempt",
        View::Blocked => "waits for its predecessor with the same key",
        View::Scheduled => "waits for its due time",
        View::Retrying => "waits for its next attempt",
        View::Ready if paused => "is due and waits for its queue, which is paused",
        View::Ready => "is due and waits for a worker",
        View::Leased => "is being handled",
        View::Parked => "is held until a person, or its condition, releases it",
        View::Completed => "is done",
        View::Dead => "was given up; a person decides",
        View::Cancelled => "was stopped",
    };
    format!(
        "{kind} {what} ({} of its attempts counted, {} given back){soon}",
        ledger.counted, ledger.refunded
    )
}

fn waiting(
    row: &MessageRow,
    lane: Option<&LaneRow>,
    handled: bool,
    now: Timestamp,
    because: &mut Vec<String>,
) -> Option<Timestamp> {
    let mut until = (row.record.due_at > now).then_some(row.record.due_at);
    if let Some(due) = until {
        because.push(format!("it is not due before {}", time_text(due)));
    }
    for gate in lane.iter().flat_map(|lane| &lane.gates) {
        if let Some((why, ends)) = shut(gate, now) {
            because.push(why);
            until = until.max(ends);
        }
    }
    if row.view == View::Blocked {
        because.push("a message with the same key came before it and is not done".to_owned());
        until = None;
    }
    if !handled {
        because.push("nobody handles its kind: no endpoint is configured here, and no pull worker asked for it in the last minute".to_owned());
        until = None;
    }
    until
}

/// Tells why a gate is shut, and until when where time alone opens it.
fn shut(gate: &GateStatus, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
    let key = &gate.view.key;
    if let Some(until) = gate.paused_until.filter(|until| *until > now) {
        let end = (until != Timestamp::NEVER).then_some(until);
        return Some((
            format!(
                "queue {key} is paused until {}",
                end.map_or_else(|| "it is resumed".to_owned(), time_text)
            ),
            end,
        ));
    }
    if holds_back(gate.view.state, gate.view.mode) {
        let state = if gate.view.mode == Mode::ForcedOpen {
            "held open by a person"
        } else {
            gate.view.state.as_str()
        };
        let probe = gate.next_probe_at.map_or_else(String::new, |at| {
            format!("; the next probe goes out at {}", time_text(at))
        });
        let since = time_text(gate.view.since);
        return Some((
            format!(
                "circuit {key} is {state} since {since}: {}{probe}",
                gate.reason
            ),
            gate.next_probe_at,
        ));
    }
    let silent = gate.view.not_before.filter(|until| *until > now)?;
    Some((
        format!("{key} asked for silence until {}", time_text(silent)),
        Some(silent),
    ))
}

fn next(row: &MessageRow, lane: Option<&LaneRow>, handled: bool) -> Vec<Next> {
    let id = row.message.id;
    let verb = |verb: &str, effect| Next {
        command: format!("POST /v1/messages/{id}/{verb}"),
        effect,
    };
    let mut next = match row.record.state {
        // Due or not, a shut circuit holds it: retrying would start nothing.
        MessageState::Waiting if row.view == View::Quarantined => {
            vec![verb("park", "holds it"), verb("cancel", "stops it")]
        }
        MessageState::Waiting => vec![
            verb("retry", "makes it due now"),
            verb("park", "holds it"),
            verb("cancel", "stops it"),
        ],
        MessageState::Parked => vec![verb("unpark", "lets it go on"), verb("cancel", "stops it")],
        MessageState::Dead => vec![
            verb("retry", "sends it round again, with fresh counts"),
            Next {
                command: format!("PATCH /v1/messages/{id}"),
                effect: "mends its payload or destination first",
            },
            verb("cancel", "lets it rest and frees its key"),
        ],
        MessageState::Leased | MessageState::Completed | MessageState::Cancelled => Vec::new(),
    };
    if row.record.state == MessageState::Waiting {
        for gate in lane.iter().flat_map(|lane| &lane.gates) {
            if gate.paused_until.is_some() {
                let command = format!("POST /v1/queues/{}/resume", gate.view.key);
                let effect = "ends the pause of its queue";
                next.insert(0, Next { command, effect });
            }
            if holds_back(gate.view.state, gate.view.mode) {
                let command = format!("POST /v1/circuits/{}/reset", gate.view.key);
                next.insert(
                    0,
                    Next {
                        command,
                        effect: "lets traffic back in, gradually, without waiting for a probe",
                    },
                );
            }
        }
        if !handled {
            let command = "POST /v1/leases".to_owned();
            next.insert(
                0,
                Next {
                    command,
                    effect: "a pull worker takes it; or configure an endpoint under [kinds]",
                },
            );
        }
    }
    next
}

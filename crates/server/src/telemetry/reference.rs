//! The reference pages of metrics and events, written from the tables that the code runs on.

use std::fmt::Write;

use super::logs;
use super::metrics::{self, Shape};

/// Gives the page of metrics, `docs/reference/metrics.md`.
pub(crate) fn metrics_markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated from crates/server/src/telemetry/metrics.rs; a test compares. -->\n\n\
         `GET /metrics` answers in the Prometheus text format. Counters and histograms are what this \
         node did since it started; gauges are read from the store at each scrape and are the same on \
         every node of it. No label is ever an id or a key. Beyond 10,000 lanes that one process has \
         met, further ones are counted together under `(other)`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in metrics::ALL {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = if labels.is_empty() {
            "–".to_owned()
        } else {
            labels.join(" ")
        };
        let shape = match metric.shape {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
            Shape::Histogram(_) => "histogram",
        };
        row(
            &mut page,
            &[
                &format!("`{}`", metric.name),
                shape,
                &labels,
                metric.meaning,
            ],
        );
    }
    page
}

/// Gives the page of events, `docs/reference/events.md`.
pub(crate) fn events_markdown() -> String {
    let mut page = String::from(
        "# Events\n\n\
         <!-- Generated from crates/server/src/telemetry/logs.rs; a test compares. -->\n\n\
         Everything the engine has to tell is an event; the log writes one line for each, under the \
         level given here. `ERROR`: someone must come. `WARN`: it healed itself. `INFO`: worth reading \
         afterwards. `DEBUG`: what happened to single messages. With `format = \"json\"` the field \
         `event` holds the name, beside it stand those of ",
    );
    let fields: Vec<String> = super::line::FIELDS
        .iter()
        .skip(1)
        .map(|field| format!("`{field}`"))
        .collect();
    page.push_str(&fields.join(" "));
    page.push_str(
        " that the event has. No line holds a payload.\n\n\
         | event | level | meaning | what to do |\n|---|---|---|---|\n",
    );
    for entry in logs::ALL {
        let event = if entry.case.is_empty() {
            format!("`{}`", entry.event)
        } else {
            format!("`{}`, {}", entry.event, entry.case)
        };
        let advice = if entry.advice.is_empty() {
            "nothing"
        } else {
            entry.advice
        };
        let level = format!("`{}`", entry.level.as_str());
        row(&mut page, &[&event, &level, entry.meaning, advice]);
    }
    page
}

fn row(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).expect("a string takes every byte");
}

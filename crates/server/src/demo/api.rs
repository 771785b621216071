//! The public HTTP API and the destination's control endpoint, as the demo reads them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

/// How often a submit is tried again; each try carries the same idempotency keys.
const TRIES_MAX: u32 = 20;
/// What a try waits where the server names no time.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest a `Retry-After` is honoured: the demo has a minute.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A moment in milliseconds since the Unix epoch, as both sides write it.
pub(crate) type Moment = i64;

/// A circuit as `GET /v1/circuits` shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Circuit {
    /// `smtp`, or `smtp:email.send` for an operation.
    pub(crate) id: String,
    /// `closed`, `open`, `half_open` or `ramping`.
    pub(crate) state: String,
    /// Since when it is in that state.
    #[serde(default)]
    pub(crate) since: Option<String>,
    /// Why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Failures that speak against it.
    #[serde(default)]
    pub(crate) failures: Value,
    /// When the next probe goes out.
    #[serde(default)]
    pub(crate) next_probe_at: Option<String>,
    /// The climb, while it ramps.
    #[serde(default)]
    pub(crate) ramp: Value,
}

/// A lane as `GET /v1/lanes` shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lane {
    /// The destination it passes through.
    pub(crate) destination: String,
    #[serde(default)]
    pub(crate) waiting: u64,
    #[serde(default)]
    pub(crate) leased: u64,
    #[serde(default)]
    pub(crate) parked: u64,
    #[serde(default)]
    pub(crate) dead: u64,
}

/// One attempt as `GET /v1/messages/{id}/attempts` shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: u64,
    #[serde(default)]
    pub(crate) started_at: Option<String>,
    #[serde(default)]
    pub(crate) outcome: Option<String>,
    #[serde(default)]
    pub(crate) class: Option<String>,
    #[serde(default)]
    pub(crate) counted: bool,
    #[serde(default)]
    pub(crate) refunded: bool,
}

/// One call as the destination's log has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Call {
    pub(crate) seq: u64,
    pub(crate) at: String,
    pub(crate) listener: String,
    pub(crate) id: Option<String>,
    pub(crate) attempt: Option<u64>,
    pub(crate) status: Option<u16>,
}

/// One message to submit.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) idempotency_key: String,
    pub(crate) payload: Value,
}

/// A client of the server and of the destination.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: Client,
    server: String,
    control: String,
}

impl Api {
    /// Makes a client of a server and of a destination's control endpoint, by their base URLs.
    ///
    /// # Errors
    /// Fails where the HTTP client cannot be set up.
    pub(crate) fn new(server: &str, control: &str) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self {
            http,
            server: server.to_owned(),
            control: control.to_owned(),
        })
    }

    /// Tells whether the server takes work.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self
            .http
            .get(format!("{}/readyz", self.server))
            .send()
            .await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Submits messages in one atomic batch and gives their ids in order.
    ///
    /// # Errors
    /// Fails on a refusal, and when the server has not taken them after many tries.
    pub(crate) async fn submit_batch(&self, drafts: &[Draft]) -> anyhow::Result<Vec<String>> {
        let message = |draft: &Draft| {
            json!({
                "kind": draft.kind,
                "payload": draft.payload,
                "idempotency_key": draft.idempotency_key,
            })
        };
        let messages: Vec<Value> = drafts.iter().map(message).collect();
        let body = json!({ "messages": messages }).to_string();
        let request = self.post("/v1/messages/batch", body);
        let answer = persist(request).await?;
        let ids: Vec<String> = list(&answer, "messages").iter().filter_map(id_of).collect();
        if ids.len() == drafts.len() {
            Ok(ids)
        } else {
            bail!("sent {} messages, got {} ids back", drafts.len(), ids.len())
        }
    }

    /// Submits one message and gives its id.
    ///
    /// # Errors
    /// As [`Api::submit_batch`].
    pub(crate) async fn submit(&self, draft: &Draft) -> anyhow::Result<String> {
        let body = json!({"kind": draft.kind, "payload": draft.payload}).to_string();
        let request = self.post("/v1/messages", body);
        let request = request.header("Idempotency-Key", &draft.idempotency_key);
        let answer = persist(request).await?;
        id_of(&answer).context("the server accepted a message without naming its id")
    }

    /// Reads the circuits.
    ///
    /// # Errors
    /// Fails where the server does not answer as its API says.
    pub(crate) async fn circuits(&self) -> anyhow::Result<Vec<Circuit>> {
        read_list(&self.read("/v1/circuits").await?)
    }

    /// Reads the lanes.
    ///
    /// # Errors
    /// As [`Api::circuits`].
    pub(crate) async fn lanes(&self) -> anyhow::Result<Vec<Lane>> {
        read_list(&self.read("/v1/lanes").await?)
    }

    /// Reads the state of a message; nothing where the server does not know it.
    ///
    /// # Errors
    /// As [`Api::circuits`].
    pub(crate) async fn state(&self, id: &str) -> anyhow::Result<Option<String>> {
        let url = format!("{}/v1/messages/{id}?payload=false", self.server);
        let answer = self.http.get(&url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let message: Value = serde_json::from_str(&body(answer).await?)?;
        Ok(message["state"].as_str().map(str::to_owned))
    }

    /// Reads the attempts of a message.
    ///
    /// # Errors
    /// As [`Api::circuits`].
    pub(crate) async fn attempts(&self, id: &str) -> anyhow::Result<Vec<Attempt>> {
        read_list(&self.read(&format!("/v1/messages/{id}/attempts")).await?)
    }

    /// Reads the metrics.
    ///
    /// # Errors
    /// As [`Api::circuits`].
    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        let answer = self.http.get(format!("{}/metrics", self.server));
        Ok(Metrics(body(answer.send().await?).await?))
    }

    /// Reads the destination's summary.
    ///
    /// # Errors
    /// Fails where the destination does not answer.
    pub(crate) async fn summary(&self) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}/flaky/summary", self.control));
        Ok(serde_json::from_str(&body(answer.send().await?).await?)?)
    }

    /// Tells the destination how to behave; true from the moment this returns.
    ///
    /// # Errors
    /// Fails where the destination does not answer, or refuses.
    pub(crate) async fn tell(&self, change: Value) -> anyhow::Result<()> {
        let request = self.http.post(format!("{}/flaky/behaviour", self.control));
        drop(body(request.body(change.to_string()).send().await?).await?);
        Ok(())
    }

    /// Reads the destination's whole log.
    ///
    /// # Errors
    /// Fails where the destination does not answer.
    pub(crate) async fn log(&self) -> anyhow::Result<Vec<Call>> {
        let mut calls: Vec<Call> = Vec::new();
        loop {
            let after = calls.last().map_or(0, |call| call.seq);
            let url = format!("{}/flaky/log?after={after}", self.control);
            let page = body(self.http.get(url).send().await?).await?;
            let before = calls.len();
            for line in page.lines() {
                calls.push(serde_json::from_str(line)?);
            }
            if calls.len() == before {
                return Ok(calls);
            }
        }
    }

    fn post(&self, path: &str, body: String) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.server));
        request.header(CONTENT_TYPE, "application/json").body(body)
    }

    async fn read(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.server);
        let answer = self.http.get(url).send().await?;
        Ok(serde_json::from_str(&body(answer).await?)?)
    }
}

/// Sends a request until it is accepted: an uncertain or postponed submit is safe to repeat, since
/// its idempotency keys are the same.
async fn persist(request: RequestBuilder) -> anyhow::Result<Value> {
    let mut tries = 0;
    loop {
        tries += 1;
        let attempt = request
            .try_clone()
            .context("a text body can be sent again")?;
        let wait = match attempt.send().await {
            Ok(answer) if postponed(answer.status()) => retry_after(&answer),
            Ok(answer) => return Ok(serde_json::from_str(&body(answer).await?)?),
            Err(error) if tries == TRIES_MAX => return Err(error.into()),
            Err(_) => PAUSE,
        };
        if tries == TRIES_MAX {
            bail!("the server took nothing in {TRIES_MAX} tries");
        }
        sleep(wait).await;
    }
}

fn postponed(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}

fn retry_after(answer: &Response) -> Duration {
    let text = answer.headers().get(RETRY_AFTER);
    let seconds = text.and_then(|value| value.to_str().ok()?.parse().ok());
    seconds
        .map_or(PAUSE, Duration::from_secs)
        .min(RETRY_AFTER_MAX)
}

async fn body(answer: Response) -> anyhow::Result<String> {
    let status = answer.status();
    let path = answer.url().path().to_owned();
    let text = answer.text().await?;
    if status.is_success() {
        Ok(text)
    } else {
        let start: String = text.chars().take(300).collect();
        bail!("{path} was answered {status}: {start}")
    }
}

fn id_of(message: &Value) -> Option<String> {
    message["id"].as_str().map(str::to_owned)
}

/// Gives the list in an answer, be it the answer itself or one of its fields.
fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    let items = answer.as_array().or_else(|| answer[field].as_array());
    items.map_or(&[], Vec::as_slice)
}

fn read_list<T: serde::de::DeserializeOwned>(answer: &Value) -> anyhow::Result<Vec<T>> {
    let items = list(answer, "items").iter();
    let read = |item: &Value| serde_json::from_value(item.clone()).map_err(Into::into);
    items.map(read).collect()
}

/// Reads a date as the API writes it; nothing where it is none.
pub(crate) fn moment(text: Option<&str>) -> Option<Moment> {
    let date: Timestamp = text?.parse().ok()?;
    Some(date.as_millisecond())
}

/// The text of `/metrics`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// Sums the samples of a metric whose labels include all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sample = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (text, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once('}')?,
                None if rest.starts_with(' ') => ("", rest),
                None => return None,
            };
            let fits = |(label, wanted): &(&str, &str)| {
                let wanted = format!("{label}=\"{wanted}\"");
                text.split(',').any(|known| known == wanted)
            };
            let value = value.split_whitespace().next()?.parse().ok()?;
            labels.iter().all(fits).then_some(value)
        };
        let total: f64 = self.0.lines().filter_map(sample).sum();
        whole(total)
    }
}

/// Rounds a count that came as a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and counts and rates are far below its limits"
)]
pub(crate) const fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_the_samples_whose_labels_fit() {
        let text = "# HELP waystation_messages how many\n\
            waystation_messages{queue=\"default\",kind=\"email.send\",state=\"completed\"} 7\n\
            waystation_messages{queue=\"default\",kind=\"sms.send\",state=\"completed\"} 5\n\
            waystation_messages{queue=\"default\",kind=\"sms.send\",state=\"dead\"} 1\n\
            waystation_messages_accepted_total{queue=\"default\"} 99\n\
            waystation_leases_active 3\n";
        let metrics = Metrics(text.to_owned());
        let sum = |labels: &[(&str, &str)]| metrics.sum("waystation_messages", labels);
        assert_eq!(sum(&[]), 13);
        assert_eq!(sum(&[("state", "completed")]), 12);
        assert_eq!(sum(&[("kind", "sms.send"), ("state", "dead")]), 1);
        assert_eq!(sum(&[("kind", "invoice.render")]), 0);
        assert_eq!(metrics.sum("waystation_leases_active", &[]), 3);
    }

    #[test]
    fn a_list_is_read_bare_and_as_items() {
        let circuit = json!({"id": "smtp", "state": "open", "since": null, "new": 1});
        for answer in [json!([circuit]), json!({"items": [circuit]})] {
            let circuits: Vec<Circuit> = read_list(&answer).expect("it is well formed");
            assert_eq!(circuits.len(), 1, "{answer}");
            assert_eq!(circuits[0].state, "open");
        }
    }

    #[test]
    fn a_date_becomes_milliseconds_and_anything_else_nothing() {
        assert_eq!(moment(Some("1970-01-01T00:00:01.250Z")), Some(1_250));
        assert_eq!(moment(Some("soon")), None);
        assert_eq!(moment(None), None);
    }
}

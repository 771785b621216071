//! The OpenAPI document against the server: every answer of every test is looked at by it, each status
//! that it lists is seen to come, and none comes that it does not list.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::server::{Reply, Server};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN: &str = "01a1fcb8-fb9f-7000-8000-0000000000ff";

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let text = include_str!("../../../../docs/reference/openapi.json");
        serde_json::from_str(text).expect("JSON")
    })
}

/// Gives all operations: method, path, what is said of it.
fn operations() -> Vec<(String, String, &'static Value)> {
    let paths = document()["paths"].as_object().expect("paths");
    let mut all = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            all.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    all
}

/// Finds the path of the document that a request's path is an instance of; one that is literally the
/// same comes first.
fn template(path: &str) -> Option<(&'static String, &'static Value)> {
    let path = path.split('?').next().unwrap_or(path);
    let is_instance = |template: &str| {
        let (mut given, mut wanted) = (path.split('/'), template.split('/'));
        loop {
            match (given.next(), wanted.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == other => {}
                (Some(one), Some(other)) if other.starts_with('{') && !one.is_empty() => {}
                _ => return false,
            }
        }
    };
    let paths = document()["paths"].as_object().expect("paths");
    let literal = paths.iter().find(|(template, _)| *template == path);
    literal.or_else(|| paths.iter().find(|(template, _)| is_instance(template)))
}

/// Looks at an answer by the document; what the document does not speak of passes.
pub(crate) fn look(method: &str, path: &str, reply: &Reply) {
    if let Err(why) = judge(method, path, reply) {
        panic!(
            "{method} {path} answered {}: {why}\n{}",
            reply.status,
            reply.text()
        );
    }
}

fn judge(method: &str, path: &str, reply: &Reply) -> Result<(), String> {
    let Some((_, item)) = template(path) else {
        return Ok(());
    };
    let Some(operation) = item.get(method.to_lowercase()) else {
        let known = [401, 403, 405].contains(&reply.status);
        return known
            .then_some(())
            .ok_or_else(|| "no such operation".to_owned());
    };
    let Some(response) = operation["responses"].get(reply.status.to_string()) else {
        return Err("a status that is not documented".to_owned());
    };
    let content = response["content"].as_object().ok_or("no content")?;
    let media = reply.header("content-type").unwrap_or("");
    let media = media.split(';').next().unwrap_or("");
    let documented = content
        .get(media)
        .ok_or_else(|| format!("the content type {media:?} is not documented"))?;
    if media.ends_with("json") {
        let body: Value = serde_json::from_slice(&reply.body).map_err(|it| it.to_string())?;
        conforms(&documented["schema"], &body, "")?;
    }
    Ok(())
}

/// Says where a value does not keep to a schema. A property that the schema does not know is one.
fn conforms(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{at:?}: {what}: {value:.80}"));
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or("");
        let target = &document()["components"]["schemas"][name];
        if target.is_null() {
            return wrong(&format!("no schema {name}"));
        }
        return conforms(target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fit = choices.iter().any(|it| conforms(it, value, at).is_ok());
        return if fit { Ok(()) } else { wrong("fits no choice") };
    }
    let types: Vec<&str> = match (schema["type"].as_str(), schema["type"].as_array()) {
        (Some(one), _) => vec![one],
        (None, Some(many)) => many.iter().filter_map(Value::as_str).collect(),
        // Without a type anything fits: a payload.
        (None, None) => return Ok(()),
    };
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !types.iter().any(|name| is(name)) {
        return wrong(&format!("is none of {types:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        return wrong("is below the minimum");
    }
    match value {
        Value::String(text) if schema["format"] == "date-time" && !is_time(text) => {
            wrong("is no time in UTC with milliseconds")
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(n, item)| conforms(&schema["items"], item, &format!("{at}/{n}"))),
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if !fields.contains_key(name.as_str().unwrap_or("")) {
                    return wrong(&format!("{name} is missing"));
                }
            }
            fields.iter().try_for_each(|(name, value)| {
                let known = schema["properties"].get(name);
                match known.or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => conforms(schema, value, &format!("{at}/{name}")),
                    None => wrong(&format!("{name} is not documented")),
                }
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}

/// A server and what requests to it need.
struct Stage {
    server: Server,
    /// Operation and status, as seen.
    seen: BTreeSet<(String, String, u16)>,
}

impl Stage {
    fn note(&mut self, method: &str, path: &str, reply: &Reply) -> Value {
        let (template, _) = template(path).unwrap_or_else(|| panic!("{path} is documented"));
        self.seen
            .insert((method.to_owned(), template.clone(), reply.status));
        serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        // The server's own client looks at each answer by the document.
        let reply = self.server.send(method, path, headers, body.as_bytes());
        self.note(method, path, &reply)
    }

    fn post(&mut self, path: &str, body: Value) -> Value {
        self.ask("POST", path, &[JSON], &body)
    }

    fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &[], &Value::Null)
    }

    /// Sends a message that waits.
    fn waiting(&mut self) -> String {
        let body = json!({"kind": "a", "delay": "1h", "payload": {"n": 1}, "headers": {"x": "y"}});
        text(&self.post("/v1/messages", body)["id"])
    }

    /// Leases a fresh message; gives the path of its lease, and its fence.
    fn leased(&mut self) -> (String, Value) {
        self.post("/v1/messages", json!({"kind": "pull"}));
        let wish = json!({"kinds": ["pull"], "wait": "10s"});
        let delivery = self.post("/v1/leases", wish)["deliveries"][0].clone();
        let lease = format!("/v1/leases/{}", text(&delivery["lease"]));
        (lease, delivery["fence"].clone())
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

/// Does everything once that can be done.
fn do_all(stage: &mut Stage) {
    for path in [
        "/healthz",
        "/readyz",
        "/v1/queues",
        "/v1/lanes",
        "/v1/circuits",
    ] {
        stage.get(path);
    }
    let id = stage.waiting();
    stage.post(
        "/v1/messages/batch",
        json!({"messages": [{"kind": "a", "delay": "1h"}]}),
    );
    let message = format!("/v1/messages/{id}");
    stage.ask("PATCH", &message, &[JSON], &json!({"priority": 7}));
    for verb in ["park", "unpark", "retry", "park", "cancel"] {
        stage.post(&format!("{message}/{verb}"), json!({"reason": "x"}));
    }
    for path in ["", "/attempts", "/explain", "?payload=false"] {
        stage.get(&format!("{message}{path}"));
    }
    let lane = "/v1/lanes/default:a:a";
    for verb in ["unpark", "cancel"] {
        stage.post(&format!("{lane}/{verb}"), json!({}));
    }
    stage.get(lane);
    stage.post(
        "/v1/queues/default/pause",
        json!({"until": "2100-01-01T00:00:00Z"}),
    );
    stage.get("/v1/queues");
    stage.post("/v1/queues/default/resume", json!({}));
    for verb in ["open", "disable", "reset"] {
        stage.post(&format!("/v1/circuits/a/{verb}"), json!({}));
    }
    work(stage);
}

/// Works as a pull worker does, and looks at all that came of it.
fn work(stage: &mut Stage) {
    let (lease, fence) = stage.leased();
    stage.post(&format!("{lease}/heartbeat"), json!({"fence": fence}));
    stage.post(&format!("{lease}/complete"), json!({"fence": fence}));
    let ends = [
        ("snooze", json!({"fence": 0, "delay": "1h"})),
        ("park", json!({"fence": 0, "reason": "x"})),
        (
            "fail",
            json!({"fence": 0, "class": "terminal", "code": "X", "stack_trace": "at y"}),
        ),
    ];
    for (verb, mut body) in ends {
        let (lease, fence) = stage.leased();
        body["fence"] = fence;
        stage.post(&format!("{lease}/{verb}"), body);
    }
    let (lease, fence) = stage.leased();
    let lease = lease.trim_start_matches("/v1/leases/");
    let lost = json!({"lease": format!("{UNKNOWN}.1"), "fence": 1, "action": "complete"});
    let done = json!({"lease": lease, "fence": fence, "action": "complete"});
    stage.post("/v1/leases/settle", json!({"settlements": [done, lost]}));
    // Lists of all sorts of messages, an attempt that failed, lanes and circuits that are there.
    for path in [
        "/v1/messages",
        "/v1/messages?limit=1",
        "/v1/dead-letters",
        "/v1/lanes",
        "/v1/circuits",
        "/metrics",
    ] {
        let list = stage.get(path);
        for item in list["items"].as_array().into_iter().flatten() {
            if let Some(id) = item["id"].as_str().filter(|_| item.get("fence").is_some()) {
                stage.get(&format!("/v1/messages/{id}/attempts"));
                stage.get(&format!("/v1/messages/{id}/explain"));
            }
        }
    }
}

/// Meets every conflict there is.
fn clash(stage: &mut Stage) {
    let keyed = [JSON, ("idempotency-key", "k")];
    for payload in [1, 2] {
        let body = json!({"kind": "a", "payload": payload, "delay": "1h"});
        stage.ask("POST", "/v1/messages", &keyed, &body);
        let item = json!({"kind": "a", "payload": payload, "delay": "1h", "idempotency_key": "k2"});
        stage.post("/v1/messages/batch", json!({"messages": [item]}));
    }
    let id = stage.waiting();
    let message = format!("/v1/messages/{id}");
    stage.post(&format!("{message}/unpark"), json!({}));
    stage.post(&format!("{message}/cancel"), json!({}));
    for verb in ["retry", "cancel", "park"] {
        stage.post(&format!("{message}/{verb}"), json!({}));
    }
    stage.ask("PATCH", &message, &[JSON], &json!({"priority": 1}));
    for (verb, body) in [
        ("heartbeat", json!({"fence": 1})),
        ("complete", json!({"fence": 1})),
        ("fail", json!({"fence": 1})),
        ("snooze", json!({"fence": 1, "delay": "1s"})),
        ("park", json!({"fence": 1})),
    ] {
        stage.post(&format!("/v1/leases/{UNKNOWN}.1/{verb}"), body);
    }
}

/// Writes a path of the document as one of a thing that is not there.
fn of_nothing(template: &str) -> String {
    template
        .replace(
            "{id}",
            if template.contains("circuits") {
                "a b"
            } else {
                UNKNOWN
            },
        )
        .replace("{lane}", "no:such:lane")
        .replace("{queue}", "a%20b")
        .replace("{lease}", &format!("{UNKNOWN}.1"))
        .replace("a b", "a%20b")
}

/// The status that a mistake gets, its headers, its body.
type Mistake<'a> = (u16, &'a [(&'a str, &'a str)], &'a str);

/// Makes the mistakes that can be made with every operation, where the document lists their status.
fn err(stage: &mut Stage, (method, template, operation): &(String, String, &Value)) {
    let path = of_nothing(template);
    let listed = |status: u16| operation["responses"].get(status.to_string()).is_some();
    let long = ("content-length", "99999999");
    let is_get = method == "GET";
    let mistakes: [Mistake<'_>; 6] = [
        (400, &[JSON], "{"),
        (
            404,
            &[JSON],
            if method == "PATCH" {
                r#"{"priority":1}"#
            } else {
                "{}"
            },
        ),
        (413, &[JSON, long], ""),
        (415, &[("content-type", "text/plain")], "{}"),
        (422, &[JSON], r#"{"nonsense":1}"#),
        (403, &[("host", "evil.example")], ""),
    ];
    for (status, headers, body) in mistakes.into_iter().filter(|(status, ..)| listed(*status)) {
        // Whether a thing is there is asked after whether its request is good.
        let path = match status {
            400 | 413 | 415 | 422 if !is_get => path
                .replace("a%20b", "a")
                .replace("no:such:lane", "default:a:a"),
            400 => format!("{path}?cursor=x"),
            422 => format!("{path}?nonsense=1"),
            _ => path.clone(),
        };
        let body = if is_get { "" } else { body };
        let headers = if is_get && status != 403 {
            &[][..]
        } else {
            headers
        };
        let reply = stage.server.send(method, &path, headers, body.as_bytes());
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        stage.note(method, &path, &reply);
    }
}

#[test]
fn every_documented_status_comes_and_no_other() {
    let mut stage = Stage {
        server: Server::start(""),
        seen: BTreeSet::new(),
    };
    do_all(&mut stage);
    clash(&mut stage);
    for operation in operations() {
        err(&mut stage, &operation);
    }
    stage.server = Server::start("[server]\ntoken = \"swordfish\"\n");
    for (method, template, _) in operations() {
        stage.ask(&method, &of_nothing(&template), &[], &Value::Null);
    }
    stage.server = Server::start("[server]\nsubmit_rate = \"1/h\"\n");
    for path in ["/v1/messages", "/v1/messages", "/v1/messages/batch"] {
        stage.post(path, json!({"kind": "a", "delay": "1h"}));
    }
    for (method, template, operation) in operations() {
        let responses = operation["responses"].as_object().expect("responses");
        for status in responses.keys() {
            let status: u16 = status.parse().expect("a status, not a range of them");
            // Those of a store in trouble are seen beside the routes, where a store can be put in trouble.
            if status < 500 {
                let seen = stage
                    .seen
                    .contains(&(method.clone(), template.clone(), status));
                assert!(seen, "{method} {template} never answered {status}");
            }
        }
    }
}

#[test]
fn an_answer_that_the_document_does_not_know_is_found() {
    let reply = |status: u16, media: &str, body: &Value| Reply {
        status,
        headers: vec![("content-type".to_owned(), media.to_owned())],
        body: body.to_string().into_bytes(),
    };
    let media = "application/json";
    let good = json!({"items": [{"lease": "x", "error": "lease_lost"}]});
    let settled = json!({"settled": [{"lease": "x", "error": "lease_lost"}]});
    let accepted = json!({
        "id": "x", "state": "waiting", "queue": "q", "kind": "k", "destination": "d",
        "created_at": "2026-11-21T09:30:00.000Z", "due_at": "2026-11-21T09:30:00.000Z", "duplicate": false,
    });
    let with = |field: &str, value: Value| {
        let mut changed = accepted.clone();
        changed[field] = value;
        changed
    };
    let is_good = |method: &str, path: &str, reply: &Reply| judge(method, path, reply).is_ok();
    let submit = |body: &Value| is_good("POST", "/v1/messages", &reply(202, media, body));
    assert!(submit(&accepted));
    assert!(is_good(
        "POST",
        "/v1/leases/settle",
        &reply(200, media, &settled)
    ));
    assert!(!is_good(
        "POST",
        "/v1/leases/settle",
        &reply(200, media, &good)
    ));
    assert!(!submit(&with("duplicate", json!("no"))));
    assert!(!submit(&with("due_at", json!("2026-11-21T09:30:00Z"))));
    assert!(!submit(&with("id", Value::Null)));
    assert!(!submit(&with("more", json!(1))));
    assert!(!is_good(
        "POST",
        "/v1/messages",
        &reply(418, media, &accepted)
    ));
    assert!(!is_good(
        "POST",
        "/v1/messages",
        &reply(200, media, &accepted)
    ));
    assert!(!is_good(
        "POST",
        "/v1/messages",
        &reply(202, "text/plain", &accepted)
    ));
    assert!(!is_good(
        "DELETE",
        "/v1/messages",
        &reply(200, media, &accepted)
    ));
}

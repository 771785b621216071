//! Pull workers and people: lease, settle, retry, cancel, park, mend, hold, pause.

use std::io::Write;

use serde_json::{Value, json};

use crate::server::{Server, request};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_pull_worker_leases_keeps_and_settles() {
    let server = Server::start("[kinds.\"*\"]\nbackoff = { fixed = \"1h\", immediate = 0 }\n");
    let id = server.submit(r#"{"kind":"a","payload":{"n": 1.0}}"#);
    let delivery = server.lease();
    assert_eq!(
        (&delivery["message"]["id"], &delivery["attempt"]),
        (&json!(id), &json!(1))
    );
    assert_eq!(delivery["message"]["payload"], json!({"n": 1.0}));
    assert_eq!(
        server.get(&format!("/v1/messages/{id}")).json()["lease"]["worker"],
        "w1"
    );
    let extended = server.settle(&delivery, "heartbeat", r#","lease":"10m""#);
    assert_eq!(extended.status, 200, "{}", extended.text());
    assert!(extended.json()["expires_at"].as_str() > delivery["expires_at"].as_str());

    let done = server.settle(&delivery, "complete", "");
    assert_eq!(
        (done.status, &done.json()["state"]),
        (200, &json!("completed"))
    );
    let repeated = server.settle(&delivery, "complete", "");
    assert_eq!(
        (repeated.status, &repeated.json()["state"]),
        (200, &json!("completed")),
        "safe to repeat"
    );
    assert_eq!(server.settle(&delivery, "fail", "").code(), "lease_lost");
    assert_eq!(
        server.settle(&delivery, "heartbeat", "").code(),
        "lease_lost"
    );
}

#[test]
fn a_workers_failure_is_kept_shown_and_explained() {
    let server = Server::start("[kinds.\"*\"]\nbackoff = { fixed = \"1h\", immediate = 0 }\n");
    server.submit(r#"{"kind":"a"}"#);
    let failing = server.lease();
    let failed = server.settle(
        &failing,
        "fail",
        r#","class":"transient","code":"CARD_DECLINED","message":"no money","stack_trace":"at pay()""#,
    );
    assert_eq!(failed.json()["state"], "waiting");
    let id = failing["message"]["id"].as_str().expect("an id");
    let shown = server.get(&format!("/v1/messages/{id}")).json();
    assert_eq!(
        (&shown["view"], &shown["counted"]),
        (&json!("retrying"), &json!(1))
    );
    assert_eq!(shown["last_error"]["code"], "CARD_DECLINED");
    let attempt = &server.get(&format!("/v1/messages/{id}/attempts")).json()["items"][0];
    for (field, expected) in [
        ("attempt", json!(1)),
        ("outcome", json!("failed")),
        ("class", json!("transient")),
        ("code", json!("CARD_DECLINED")),
        ("message", json!("no money")),
        ("stack_trace", json!("at pay()")),
        ("worker", json!("w1")),
        ("counted", json!(true)),
        ("refunded", json!(false)),
    ] {
        assert_eq!(attempt[field], expected, "{field}");
    }
    let explained = server.get(&format!("/v1/messages/{id}/explain")).json();
    assert!(
        explained["summary"]
            .as_str()
            .expect("text")
            .contains("waits for its next attempt"),
        "{explained}"
    );
    assert!(
        explained["because"].to_string().contains("CARD_DECLINED"),
        "{explained}"
    );
    assert!(
        explained["next"]
            .to_string()
            .contains(&format!("/v1/messages/{id}/retry")),
        "{explained}"
    );
    assert_eq!(explained["until"], shown["due_at"]);
}

#[test]
fn many_settlements_stand_for_themselves() {
    let server = Server::start("");
    for _ in 0..4 {
        server.submit(r#"{"kind":"a"}"#);
    }
    let leased = server
        .post("/v1/leases", r#"{"kinds": ["a"], "max": 4, "wait": "10s"}"#)
        .json();
    let all = leased["deliveries"].as_array().expect("deliveries");
    assert_eq!(all.len(), 4);
    let item = |at: usize, more: &str| {
        format!(
            r#"{{"lease":{},"fence":{}{more}}}"#,
            all[at]["lease"], all[at]["fence"]
        )
    };
    let body = format!(
        r#"{{"settlements":[{},{},{},{},{{"lease":"nonsense","fence":1,"action":"complete"}}]}}"#,
        item(0, r#","action":"complete""#),
        item(1, r#","action":"snooze","delay":"1h""#),
        item(2, r#","action":"park","reason":"look at it""#),
        item(3, r#","action":"fail","class":"terminal","code":"NO""#),
    );
    let settled = server.post("/v1/leases/settle", &body).json();
    let states: Vec<&Value> = settled["settled"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["state"])
        .collect();
    assert_eq!(
        states,
        [
            &json!("completed"),
            &json!("waiting"),
            &json!("parked"),
            &json!("dead"),
            &Value::Null
        ]
    );
    assert_eq!(settled["settled"][4]["error"], "lease_lost");
    let parked = server.get("/v1/messages?state=parked").json();
    assert_eq!(parked["items"][0]["reason"], "handler: look at it");
    let dead = server.get("/v1/dead-letters").json();
    assert_eq!(
        (
            &dead["items"][0]["reason"],
            dead["items"].as_array().map(Vec::len)
        ),
        (&json!("refused"), Some(1))
    );
}

#[test]
fn people_retry_cancel_park_unpark_and_mend() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"a","delay":"1h","payload":1}"#);
    let act = |verb: &str, body: &str| server.post(&format!("/v1/messages/{id}/{verb}"), body);
    assert_eq!(act("unpark", "").code(), "conflict");
    let parked = act("park", r#"{"reason":"wait for Ada"}"#).json();
    assert_eq!(
        (&parked["state"], &parked["reason"]),
        (&json!("parked"), &json!("operator: wait for Ada"))
    );
    let again = act("park", "");
    assert_eq!(
        (again.status, &again.json()["state"]),
        (409, &json!("parked"))
    );
    let fence = parked["fence"].as_u64().expect("a fence");

    let edit = |tag: &str, body: &str| {
        server.send(
            "PATCH",
            &format!("/v1/messages/{id}"),
            &[JSON, ("if-match", tag)],
            body.as_bytes(),
        )
    };
    assert_eq!(edit("\"99\"", r#"{"priority":9}"#).code(), "conflict");
    let mended = edit(
        &format!("\"{fence}\""),
        r#"{"payload":{"n": 2.0},"priority":9,"max_attempts":5,"headers":{"a":"b"},"destination":"d"}"#,
    );
    assert_eq!(mended.status, 200, "{}", mended.text());
    assert!(
        mended.text().contains(r#""payload":{"n": 2.0}"#),
        "{}",
        mended.text()
    );
    let body = mended.json();
    assert_eq!(
        (
            &body["priority"],
            &body["max_attempts"],
            &body["destination"]
        ),
        (&json!(9), &json!(5), &json!("d"))
    );
    assert_eq!(
        mended.header("etag").map(str::to_owned),
        Some(format!("\"{}\"", body["fence"]))
    );

    assert_eq!(act("unpark", "").json()["state"], "waiting");
    assert_eq!(act("retry", "").json()["view"], "ready");
    let cancelled = act("cancel", "").json();
    assert_eq!(
        (&cancelled["state"], &cancelled["reason"]),
        (&json!("cancelled"), &json!("operator"))
    );
    assert_eq!(act("retry", "").code(), "conflict");
}

#[test]
fn a_dead_message_goes_round_again_with_fresh_counts() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"a"}"#);
    server.settle(&server.lease(), "fail", r#","class":"terminal""#);
    assert_eq!(
        server.get(&format!("/v1/messages/{id}")).json()["state"],
        "dead"
    );
    let again = server.post(&format!("/v1/messages/{id}/retry"), "").json();
    assert_eq!(
        (&again["state"], &again["generation"], &again["counted"]),
        (&json!("waiting"), &json!(2), &json!(0))
    );
    let delivery = server.lease();
    assert_eq!(
        (&delivery["message"]["id"], &delivery["attempt"]),
        (&json!(id), &json!(1))
    );
    server.settle(&delivery, "complete", "");
    assert_eq!(
        server.get(&format!("/v1/messages/{id}/attempts")).json()["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn a_circuit_is_held_open_reset_and_disabled_by_hand() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"email.send","destination":"smtp"}"#);
    let act =
        |circuit: &str, verb: &str| server.post(&format!("/v1/circuits/{circuit}/{verb}"), "");
    let open = act("smtp", "open").json();
    assert_eq!(
        (&open["id"], &open["mode"], &open["destination"]),
        (&json!("smtp"), &json!("forced_open"), &json!("smtp"))
    );
    assert_eq!(
        server.get(&format!("/v1/messages/{id}")).json()["view"],
        "quarantined"
    );
    assert_eq!(server.get("/v1/lanes").json()["items"][0]["quarantined"], 1);
    let explained = server.get(&format!("/v1/messages/{id}/explain")).json();
    assert!(
        explained["because"]
            .to_string()
            .contains("circuit smtp is held open by a person"),
        "{explained}"
    );
    assert_eq!(
        explained["next"][1]["command"],
        "POST /v1/circuits/smtp/reset"
    );
    // Retrying would start nothing behind a circuit that is held open.
    assert!(
        !explained["next"].to_string().contains("/retry"),
        "{explained}"
    );
    let none = server.post("/v1/leases", r#"{"kinds":["*"]}"#).json();
    assert_eq!(none["deliveries"], json!([]));

    assert_eq!(act("smtp", "reset").json()["mode"], "auto");
    assert_eq!(server.lease()["message"]["id"], id.as_str());
    let disabled = act("smtp:email.send", "disable").json();
    assert_eq!(
        (&disabled["mode"], &disabled["kind"]),
        (&json!("disabled"), &json!("email.send"))
    );
    let listed = server.get("/v1/circuits").json();
    let ids: Vec<&Value> = listed["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert!(
        ids.contains(&&json!("smtp")) && ids.contains(&&json!("smtp:email.send")),
        "{listed}"
    );
    assert_eq!(act("email.send", "reset").code(), "not_found");
    let after = server.get("/v1/circuits").json();
    assert!(
        !after.to_string().contains("\"id\":\"email.send\""),
        "a slip in a name makes no circuit: {after}"
    );
    assert_eq!(act("a%20b", "open").code(), "not_found");
    assert_eq!(act("a:b:c", "open").code(), "not_found");
}

#[test]
fn a_queue_is_paused_until_it_is_resumed() {
    let server = Server::start("");
    let paused = server.post("/v1/queues/mail/pause", "{}").json();
    assert_eq!(
        (&paused["queue"], &paused["paused"]),
        (&json!("mail"), &json!(true))
    );
    assert_eq!(paused["paused_until"], "9999-12-30T22:00:00.000Z");
    let id = server.submit(r#"{"kind":"a","queue":"mail"}"#);
    let explained = server.get(&format!("/v1/messages/{id}/explain")).json();
    assert!(
        explained["summary"].to_string().contains("paused"),
        "{explained}"
    );
    assert!(
        explained["next"]
            .to_string()
            .contains("POST /v1/queues/mail/resume"),
        "{explained}"
    );
    assert_eq!(
        server.post("/v1/leases", r#"{"kinds":["*"]}"#).json()["deliveries"],
        json!([])
    );
    let explained = server.get(&format!("/v1/messages/{id}/explain")).json();
    assert!(
        explained["because"]
            .to_string()
            .contains("queue mail is paused until it is resumed"),
        "{explained}"
    );
    assert_eq!(
        server.post("/v1/queues/mail/resume", "").json()["paused"],
        false
    );
    assert_eq!(server.lease()["message"]["id"], id.as_str());
    let until = server
        .post(
            "/v1/queues/mail/pause",
            r#"{"until":"2100-01-01T00:00:00Z"}"#,
        )
        .json();
    assert_eq!(until["paused_until"], "2100-01-01T00:00:00.000Z");
}

#[test]
fn parked_messages_of_a_lane_are_released_or_cancelled_together() {
    let server = Server::start("");
    for _ in 0..3 {
        let id = server.submit(r#"{"kind":"a","delay":"1h"}"#);
        assert_eq!(
            server.post(&format!("/v1/messages/{id}/park"), "").status,
            200
        );
    }
    let lane = "/v1/lanes/default:a:a";
    assert_eq!(
        server
            .post(&format!("{lane}/unpark"), r#"{"incident":7}"#)
            .json()["released"],
        0
    );
    assert_eq!(
        server.post(&format!("{lane}/unpark"), "").json(),
        json!({"released": 3, "more": false})
    );
    let id = server.submit(r#"{"kind":"a","delay":"1h"}"#);
    server.post(&format!("/v1/messages/{id}/park"), "");
    assert_eq!(
        server
            .post(&format!("{lane}/cancel"), r#"{"reason":"too late"}"#)
            .json(),
        json!({"cancelled": 1, "more": false})
    );
    assert_eq!(
        server.get(&format!("/v1/messages/{id}")).json()["reason"],
        "operator: too late"
    );
    assert_eq!(
        server.post("/v1/lanes/default:b:b/unpark", "").code(),
        "not_found"
    );
    assert_eq!(server.get("/v1/lanes/nonsense").code(), "not_found");
}

#[test]
fn a_caller_that_has_gone_keeps_nothing() {
    let server = Server::start("");
    let wish = r#"{"kinds":["a"],"wait":"30s","lease":"1h","worker":"gone"}"#;
    let mut poll = server.connect();
    poll.write_all(&request("POST", "/v1/leases", &[JSON], wish.as_bytes()))
        .expect("it takes the request");
    drop(poll);
    let id = server.submit(r#"{"kind":"a"}"#);
    // Far sooner than the gone caller's lease would end.
    let delivery = server.lease();
    let shown = server.get(&format!("/v1/messages/{id}")).json();
    assert_eq!(delivery["message"]["id"], id.as_str(), "{shown}");
    assert_eq!(delivery["message"]["counted"], 0);
    assert_eq!(server.settle(&delivery, "complete", "").status, 200);
}

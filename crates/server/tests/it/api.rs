//! The API as a client sees it: each route, each thing it promises.

use serde_json::{Value, json};

use crate::server::Server;

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_message_is_accepted_shown_and_listed() {
    let server = Server::start("");
    let reply = server.post(
        "/v1/messages",
        r#"{"kind":"email.send","queue":"mail","key":"c1","priority":7,"max_attempts":3,"headers":{"X-A":"b"},"payload":{"z": 1.00, "a":[ ]},"delay":"1h"}"#,
    );
    assert_eq!(reply.status, 202);
    let accepted = reply.json();
    let id = accepted["id"].as_str().expect("an id");
    assert_eq!(
        reply.header("location"),
        Some(format!("/v1/messages/{id}").as_str())
    );
    assert_eq!(accepted["state"], "waiting");
    assert_eq!(
        (&accepted["queue"], &accepted["destination"]),
        (&json!("mail"), &json!("email.send"))
    );
    assert_eq!(accepted["duplicate"], false);

    let shown = server.get(&format!("/v1/messages/{id}"));
    assert!(
        shown.text().contains(r#""payload":{"z": 1.00, "a":[ ]}"#),
        "byte for byte: {}",
        shown.text()
    );
    assert_eq!(shown.header("etag"), Some("\"0\""));
    let shown = shown.json();
    for (field, expected) in [
        ("view", json!("scheduled")),
        ("key", json!("c1")),
        ("priority", json!(7)),
        ("max_attempts", json!(3)),
        ("headers", json!({"x-a": "b"})),
        ("attempts", json!(0)),
        ("generation", json!(1)),
        ("lease", Value::Null),
        ("due_at", accepted["due_at"].clone()),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    let without = server
        .get(&format!("/v1/messages/{id}?payload=false"))
        .json();
    assert!(without.get("payload").is_none());

    let list = server
        .get("/v1/messages?queue=mail&state=waiting&key=c1")
        .json();
    assert_eq!(list["items"][0]["id"], id);
    assert_eq!(list["next_cursor"], Value::Null);
    assert_eq!(
        server.get("/v1/messages?queue=other").json()["items"],
        json!([])
    );
    let queue = &server.get("/v1/queues").json()["items"][0];
    assert_eq!(
        (&queue["queue"], &queue["waiting"], &queue["accepted"]),
        (&json!("mail"), &json!(1), &json!(1))
    );
    let lane = server.get("/v1/lanes/mail:email.send:email.send").json();
    assert_eq!(
        (&lane["waiting"], &lane["due"], &lane["due_more"]),
        (&json!(1), &json!(0), &json!(false))
    );
    assert_eq!(
        (&lane["open"], &lane["handled"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        server.get("/v1/lanes").json()["items"][0]["lane"],
        "mail:email.send:email.send"
    );
}

#[test]
fn a_payload_of_another_type_comes_with_its_fields_in_headers_and_is_shown_as_base64() {
    let server = Server::start("");
    let headers = [
        ("content-type", "image/png"),
        ("waystation-kind", "image.resize"),
        ("waystation-queue", "pictures"),
        ("waystation-priority", "9"),
        ("waystation-key", "k"),
        ("waystation-delay", "1h"),
        ("waystation-header-x-size", "10"),
        ("idempotency-key", "one"),
    ];
    let reply = server.send("POST", "/v1/messages", &headers, &[0, 255, 1]);
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["id"].as_str().expect("an id").to_owned();
    let shown = server.get(&format!("/v1/messages/{id}")).json();
    assert_eq!(
        (&shown["payload_base64"], &shown["content_type"]),
        (&json!("AP8B"), &json!("image/png"))
    );
    assert_eq!(
        (&shown["queue"], &shown["priority"], &shown["key"]),
        (&json!("pictures"), &json!(9), &json!("k"))
    );
    assert_eq!(shown["headers"], json!({"x-size": "10"}));
    assert_eq!(shown["view"], "scheduled");
    let again = server.send("POST", "/v1/messages", &headers, &[0, 255, 1]);
    assert_eq!(
        (
            again.json()["id"].as_str(),
            again.json()["duplicate"].as_bool()
        ),
        (Some(id.as_str()), Some(true))
    );
    assert_eq!(
        server
            .send("POST", "/v1/messages", &headers, &[0, 255, 2])
            .code(),
        "idempotency_mismatch"
    );
}

#[test]
fn the_same_key_gives_one_message_and_another_message_is_refused() {
    let server = Server::start("");
    let send = |body: &str| {
        server.send(
            "POST",
            "/v1/messages",
            &[JSON, ("idempotency-key", "order-1")],
            body.as_bytes(),
        )
    };
    let first = send(r#"{"kind":"a","payload":1}"#);
    assert_eq!(
        (first.status, first.header("idempotent-replayed")),
        (202, None)
    );
    let again = send(
        r#"{"payload":1, "queue":"default", "kind":"a", "headers":{"h":"other headers do not count"}}"#,
    );
    assert_eq!(
        (again.status, again.header("idempotent-replayed")),
        (202, Some("true"))
    );
    assert_eq!(again.json()["id"], first.json()["id"]);
    for other in [
        r#"{"kind":"a","payload":2}"#,
        r#"{"kind":"b","payload":1}"#,
        r#"{"kind":"a","payload":1,"delay":"1s"}"#,
    ] {
        let refused = send(other);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "idempotency_mismatch"),
            "{other}"
        );
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_batch_is_accepted_in_order_or_not_at_all() {
    let server = Server::start("");
    let reply = server.post(
        "/v1/messages/batch",
        r#"{"messages":[{"kind":"a","payload":{"n": 1.0}},{"kind":"b","idempotency_key":"k"},{"kind":"b","idempotency_key":"k"}]}"#,
    );
    assert_eq!(reply.status, 202, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["accepted"], 3);
    assert_eq!(body["messages"][1]["id"], body["messages"][2]["id"]);
    let duplicates: Vec<bool> = (0..3)
        .map(|at| body["messages"][at]["duplicate"].as_bool().expect("told"))
        .collect();
    assert_eq!(duplicates, [false, false, true]);
    let id = body["messages"][0]["id"].as_str().expect("an id");
    assert!(
        server
            .get(&format!("/v1/messages/{id}"))
            .text()
            .contains(r#""payload":{"n": 1.0}"#)
    );
    assert_eq!(server.accepted(), 2);

    let bad = server.post(
        "/v1/messages/batch",
        r#"{"messages":[{"kind":"a"},{"kind":"a b"},{"kind":"a","pririty":1}]}"#,
    );
    assert_eq!((bad.status, bad.code().as_str()), (422, "invalid_field"));
    let pointers: Vec<Value> = bad.json()["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|it| it["pointer"].clone())
        .collect();
    assert_eq!(
        pointers,
        [json!("/messages/1/kind"), json!("/messages/2/pririty")]
    );
    let clash = server.post(
        "/v1/messages/batch",
        r#"{"messages":[{"kind":"c"},{"kind":"b","payload":9,"idempotency_key":"k"}]}"#,
    );
    assert_eq!(clash.code(), "idempotency_mismatch");
    assert_eq!(
        clash.json()["errors"][0]["pointer"],
        "/messages/1/idempotency_key"
    );
    assert_eq!(server.accepted(), 2);
}

#[test]
fn cursors_walk_a_list_without_gaps_and_belong_to_their_filters() {
    let server = Server::start("");
    let ids: Vec<String> = (0..7)
        .map(|n| server.submit(&format!(r#"{{"kind":"k","payload":{n}}}"#)))
        .collect();
    let mut seen = Vec::new();
    let mut path = "/v1/messages?limit=3&kind=k".to_owned();
    loop {
        let page = server.get(&path).json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 3);
        seen.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().expect("an id").to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        assert_eq!(
            server
                .get(&format!("/v1/messages?limit=3&kind=other&cursor={cursor}"))
                .code(),
            "invalid_cursor"
        );
        path = format!("/v1/messages?limit=3&kind=k&cursor={cursor}");
    }
    let newest_first: Vec<String> = ids.into_iter().rev().collect();
    assert_eq!(seen, newest_first);
}

#[test]
fn both_forms_of_a_cloudevent_are_the_same_message() {
    let server = Server::start("");
    let structured = server.send(
        "POST",
        "/v1/messages",
        &[("content-type", "application/cloudevents+json; charset=utf-8")],
        br#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed","partitionkey":"c","waystationqueue":"orders",
            "waystationdestination":"warehouse","subject":"o 7","data":{"n": 1.0}}"#,
    );
    assert_eq!(structured.status, 202, "{}", structured.text());
    let id = structured.json()["id"].as_str().expect("an id").to_owned();
    let shown = server.get(&format!("/v1/messages/{id}"));
    assert!(
        shown.text().contains(r#""payload":{"n": 1.0}"#),
        "{}",
        shown.text()
    );
    let shown = shown.json();
    for (field, expected) in [
        ("kind", json!("order.placed")),
        ("queue", json!("orders")),
        ("destination", json!("warehouse")),
        ("key", json!("c")),
        (
            "headers",
            json!({"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/shop", "ce-type": "order.placed", "ce-partitionkey": "c", "ce-subject": "o%207"}),
        ),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    let binary = server.send(
        "POST",
        "/v1/messages",
        &[
            JSON,
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/shop"),
            ("ce-type", "order.placed"),
            ("ce-partitionkey", "c"),
            ("ce-waystationqueue", "orders"),
            ("ce-waystationdestination", "warehouse"),
        ],
        br#"{"n": 1.0}"#,
    );
    assert_eq!(
        binary.header("idempotent-replayed"),
        Some("true"),
        "{}",
        binary.text()
    );
    assert_eq!(binary.json()["id"], id.as_str());
}

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
    let id = server.submit(r#"{"kind":"a","queue":"mail"}"#);
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
            .json()["released"],
        1
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
fn the_server_explains_itself() {
    let server = Server::start("");
    assert_eq!(server.get("/healthz").json(), json!({"status": "ok"}));
    let ready = server.get("/readyz").json();
    assert_eq!(
        (&ready["status"], &ready["store"]),
        (&json!("ok"), &json!("memory"))
    );
    server.submit(r#"{"kind":"a","key":"secret-key"}"#);
    server.post("/v1/messages", "{");
    let metrics = server.get("/metrics").text();
    for line in [
        "waystation_messages_accepted_total{kind=\"a\",queue=\"default\",source=\"http\"} 1",
        "waystation_messages_rejected_total{reason=\"malformed_json\"} 1",
        "waystation_messages{kind=\"a\",queue=\"default\",state=\"waiting\"} 1",
        "waystation_lanes_unhandled 1",
        "waystation_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("secret-key"));
    let openapi = server.get("/openapi.json").json();
    assert_eq!(openapi["openapi"], "3.1.0");
    assert!(openapi["paths"]["/v1/messages"]["post"].is_object());
    let docs = server.get("/docs/");
    assert_eq!(docs.status, 200);
    assert!(docs.text().contains("swagger-ui"));
    assert_eq!(server.get("/docs/swagger-ui-bundle.js").status, 200);
    let errors = server.get("/errors").text();
    for code in ["malformed_json", "lease_lost", "too_many_lanes", "internal"] {
        assert!(errors.contains(&format!("/errors/{code}")), "{code}");
        assert_eq!(server.get(&format!("/errors/{code}")).status, 200);
    }
    assert_eq!(server.get("/errors/nonsense").code(), "not_found");
}

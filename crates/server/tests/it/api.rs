//! The API as a client sees it: each route, each thing it promises.

use serde_json::{Value, json};

use crate::server::Server;

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_message_is_accepted_and_shown() {
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
}

#[test]
fn a_message_is_listed_and_counted_in_its_queue_and_lane() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"email.send","queue":"mail","key":"c1","delay":"1h"}"#);
    let list = server
        .get("/v1/messages?queue=mail&state=waiting&key=c1")
        .json();
    assert_eq!(list["items"][0]["id"], id.as_str());
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

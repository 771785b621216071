//! CloudEvents, structured and binary.

use super::Bad;
use super::bodies::{Body, Spoilt};
use super::chance::Chance;
use super::fields::{no_name, quoted};
use super::routes::Request;

const STRUCTURED: &str = "application/cloudevents+json";

fn good_body(chance: &mut Chance) -> Body {
    let mut body = Body {
        entries: Vec::new(),
    };
    body.set("specversion", "\"1.0\"".to_owned());
    body.set("id", quoted(&format!("{:x}", chance.draw())));
    body.set("source", quoted(&format!("/s/{}", chance.name())));
    body.set("type", quoted(&chance.name()));
    if chance.one_in(2) {
        body.set("subject", quoted("ä b"));
    }
    if chance.one_in(2) {
        body.set("partitionkey", quoted(&chance.name()));
    }
    if chance.one_in(2) {
        body.set("ext1", (*chance.pick(&["true", "7", "\"x\""])).to_owned());
    }
    match chance.below(3) {
        0 => body.set("data", "{\"n\": 1.0}".to_owned()),
        1 => body.set("data_base64", "\"AAEC\"".to_owned()),
        _ => {}
    }
    body
}

fn structured(body: &Body) -> Request {
    let mut request = Request::new("POST", "/v1/messages");
    request.header("content-type", STRUCTURED);
    request.body = body.write().into_bytes();
    request
}

/// Makes an event that must be taken.
pub(super) fn good_structured(chance: &mut Chance) -> Request {
    structured(&good_body(chance))
}

/// Makes one that must be refused.
pub(super) fn spoilt_structured(chance: &mut Chance) -> Bad {
    let mut body = good_body(chance);
    let pointer = match chance.below(9) {
        0 => {
            let bad = ["\"0.3\"", "\"1\"", "\"\"", "null", "2", "true", "\"1.0 \""];
            body.set("specversion", (*chance.pick(&bad)).to_owned());
            "/specversion".to_owned()
        }
        1 => {
            let name = *chance.pick(&["id", "source", "type", "specversion"]);
            match chance.below(3) {
                0 => body.remove(name),
                1 => body.set(name, "null".to_owned()),
                _ => body.set(name, "\"\"".to_owned()),
            }
            format!("/{name}")
        }
        2 => {
            let name = *chance.pick(&["type", "waystationqueue", "waystationdestination"]);
            body.set(name, quoted(&no_name(chance)));
            format!("/{name}")
        }
        3 => {
            let names = ["Odd", "a-b", "a_b", "ä", "A", "sub ject"];
            let name = *chance.pick(&names);
            body.set(name, "\"x\"".to_owned());
            format!("/{name}")
        }
        4 => {
            let value = *chance.pick(&["{}", "[]", "{\"a\":1}", "[\"x\"]"]);
            let name = *chance.pick(&["ext2", "subject", "source"]);
            body.set(name, value.to_owned());
            format!("/{name}")
        }
        5 => {
            body.set("ext2", quoted(&"v".repeat(chance.between(2_049, 4_000))));
            "/ext2".to_owned()
        }
        6 => {
            body.set("data", "1".to_owned());
            body.set("data_base64", "\"AAEC\"".to_owned());
            "/data_base64".to_owned()
        }
        7 => {
            body.remove("data");
            let bad = ["\"%\"", "\"A\"", "\"AA\"", "5", "{}", "\"AAEC=\"", "\"ä\""];
            body.set("data_base64", (*chance.pick(&bad)).to_owned());
            "/data_base64".to_owned()
        }
        _ => {
            for n in 0..chance.between(33, 60) {
                body.set(&format!("e{n}"), "\"x\"".to_owned());
            }
            String::new()
        }
    };
    let told = Spoilt::invalid(
        &body,
        format!("event with a wrong {pointer}"),
        vec![pointer],
    );
    structured(&body).refused(told.wrong, (told.status, told.code), told.pointers)
}

fn binary(chance: &mut Chance) -> Request {
    let mut request = Request::new("POST", "/v1/messages");
    request.header("ce-specversion", "1.0");
    request.header("ce-id", format!("{:x}", chance.draw()));
    request.header("ce-source", format!("/s/{}", chance.name()));
    request.header("ce-type", chance.name());
    if chance.one_in(2) {
        request.header("content-type", "application/json");
        request.body = b"{}".to_vec();
    }
    request
}

/// Makes an event that must be taken.
pub(super) fn good_binary(chance: &mut Chance) -> Request {
    binary(chance)
}

/// Makes one that must be refused.
pub(super) fn spoilt_binary(chance: &mut Chance) -> Bad {
    let mut request = binary(chance);
    let set = |request: &mut Request, name: &str, value: &[u8]| {
        request.headers.retain(|(known, _)| known != name);
        request.header(name, value);
        name.to_owned()
    };
    let pointer = match chance.below(6) {
        0 => {
            let bad = *chance.pick(&["0.3", "", "1.0.0", "one"]);
            set(&mut request, "ce-specversion", bad.as_bytes())
        }
        1 => {
            let name = *chance.pick(&["ce-id", "ce-source", "ce-type"]);
            request.headers.retain(|(known, _)| known != name);
            name.to_owned()
        }
        2 => {
            let bad = *chance.pick(&["a b", "a%20b", "a/b", "%00", "a:b", "%"]);
            let name = *chance.pick(&["ce-type", "ce-waystationqueue", "ce-waystationdestination"]);
            set(&mut request, name, bad.as_bytes())
        }
        3 => {
            let name = *chance.pick(&["ce-bad_name", "ce-a.b", "ce-a-b", "ce-a~"]);
            set(&mut request, name, b"x")
        }
        4 => set(&mut request, "ce-subject", b"\xff\xfe"),
        _ => {
            let long = "v".repeat(chance.between(2_049, 4_000));
            set(&mut request, "ce-subject", long.as_bytes())
        }
    };
    let wrong = format!("event with a wrong {pointer}");
    request.refused(wrong, (422, "invalid_field"), vec![pointer])
}

//! Requests to the API, by the contract that its clients read: which route takes which fields.

use super::bodies::{Body, Spoilt, broken, spoilt};
use super::chance::Chance;
use super::fields::{Field, Shape};
use super::{Bad, Verdict, events, lines, opaque};

/// What the generator may take for granted of the server.
#[derive(Clone, Debug)]
pub struct Ground {
    /// A message that is there.
    pub message: String,
    /// A cursor that `GET /v1/messages?limit=1` gave.
    pub cursor: String,
    /// The largest payload, in bytes.
    pub payload_max: usize,
    /// The largest body with one message, in bytes.
    pub body_max: usize,
}

const FOREVER: u64 = 3_650 * 24 * 3_600;
const ANY_WHOLE: Shape = Shape::Whole {
    least: 0,
    most: u64::MAX,
};
const LEASE: Shape = Shape::Length {
    least: 1,
    most: 3_600,
};
const FREE_TEXT: Shape = Shape::Text {
    most: 1 << 20,
    empty: true,
    line: false,
};
const REASON: Shape = Shape::Text {
    most: 1_024,
    empty: true,
    line: true,
};

/// The fields of a message.
pub(super) const MESSAGE: &[Field] = &[
    Field::new("kind", Shape::Name).required(),
    Field::new("payload", Shape::Json),
    Field::new("queue", Shape::Name),
    Field::new("destination", Shape::Name),
    Field::new(
        "key",
        Shape::Text {
            most: 255,
            empty: false,
            line: false,
        },
    ),
    Field::new("priority", Shape::Whole { least: 0, most: 9 }),
    Field::new("due_at", Shape::Time).against("delay"),
    Field::new(
        "delay",
        Shape::Length {
            least: 0,
            most: FOREVER,
        },
    )
    .against("due_at"),
    Field::new(
        "max_attempts",
        Shape::Whole {
            least: 1,
            most: 100,
        },
    ),
    Field::new("headers", Shape::Headers),
];
const IDEMPOTENCY: Field = Field::new("idempotency_key", Shape::Token);
const EDIT: &[Field] = &[
    Field::new("payload", Shape::Json),
    Field::new("due_at", Shape::Time),
    Field::new("priority", Shape::Whole { least: 0, most: 9 }),
    Field::new(
        "max_attempts",
        Shape::Whole {
            least: 1,
            most: 100,
        },
    ),
    Field::new("headers", Shape::Headers),
    Field::new("destination", Shape::Name),
];
const BECAUSE: &[Field] = &[Field::new("reason", REASON)];
const PAUSE: &[Field] = &[Field::new("until", Shape::Time)];
const NOTHING: &[Field] = &[];
const UNPARK: &[Field] = &[Field::new("incident", ANY_WHOLE)];
const CANCEL: &[Field] = &[
    Field::new("incident", ANY_WHOLE),
    Field::new("reason", REASON),
];
const WISH: &[Field] = &[
    Field::new("kinds", Shape::Names { required: true }).required(),
    Field::new("queues", Shape::Names { required: false }),
    Field::new(
        "max",
        Shape::Whole {
            least: 1,
            most: 1_000,
        },
    ),
    Field::new("lease", LEASE),
    Field::new("wait", Shape::Length { least: 0, most: 30 }),
    Field::new(
        "worker",
        Shape::Text {
            most: 255,
            empty: false,
            line: true,
        },
    ),
];
const FENCE: Field = Field::new("fence", ANY_WHOLE).required();
const HEARTBEAT: &[Field] = &[FENCE, Field::new("lease", LEASE)];
const COMPLETE: &[Field] = &[FENCE];
const FAIL: &[Field] = &[
    FENCE,
    Field::new(
        "class",
        Shape::Word(&["transient", "unavailable", "terminal", "poison"]),
    ),
    Field::new("code", FREE_TEXT),
    Field::new("message", FREE_TEXT),
    Field::new("stack_trace", FREE_TEXT),
];
const SNOOZE: &[Field] = &[
    FENCE,
    Field::new(
        "delay",
        Shape::Length {
            least: 0,
            most: FOREVER,
        },
    )
    .required(),
];
const PARK: &[Field] = &[FENCE, Field::new("reason", REASON)];
const SETTLE: &[Field] = &[
    Field::new("lease", FREE_TEXT).required(),
    FENCE,
    Field::new("action", Shape::Word(&["complete"])).required(),
];

/// A route with a JSON body: method, path, fields.
const ROUTES: &[(&str, &str, &[Field])] = &[
    ("POST", "/v1/messages", MESSAGE),
    ("POST", "/v1/messages", MESSAGE),
    ("POST", "/v1/messages", MESSAGE),
    ("PATCH", "/v1/messages/{message}", EDIT),
    ("POST", "/v1/messages/{message}/retry", BECAUSE),
    ("POST", "/v1/messages/{message}/cancel", BECAUSE),
    ("POST", "/v1/messages/{message}/park", BECAUSE),
    ("POST", "/v1/messages/{message}/unpark", BECAUSE),
    ("POST", "/v1/queues/default/pause", PAUSE),
    ("POST", "/v1/queues/default/resume", NOTHING),
    ("POST", "/v1/lanes/default:a:a/unpark", UNPARK),
    ("POST", "/v1/lanes/default:a:a/cancel", CANCEL),
    ("POST", "/v1/circuits/a/open", NOTHING),
    ("POST", "/v1/circuits/a:a/disable", NOTHING),
    ("POST", "/v1/circuits/a/reset", NOTHING),
    ("POST", "/v1/leases", WISH),
    ("POST", "/v1/leases/{lease}/heartbeat", HEARTBEAT),
    ("POST", "/v1/leases/{lease}/complete", COMPLETE),
    ("POST", "/v1/leases/{lease}/fail", FAIL),
    ("POST", "/v1/leases/{lease}/snooze", SNOOZE),
    ("POST", "/v1/leases/{lease}/park", PARK),
];
/// Routes whose body is a list of things.
const LISTS: &[(&str, &str, &str, &[Field])] = &[
    ("POST", "/v1/messages/batch", "messages", MESSAGE),
    ("POST", "/v1/leases/settle", "settlements", SETTLE),
];

/// A request as it will be written.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Without `Host` and `Content-Length`, which are added.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn json(method: &str, path: &str, body: Vec<u8>) -> Self {
        let mut request = Self::new(method, path);
        request.header("content-type", "application/json");
        request.body = body;
        request
    }

    pub(super) fn header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
    }

    /// Writes the request, with a `Host` where none is given.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name == wanted);
        if !has("host") {
            bytes.extend(b"host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            bytes.extend(name.as_bytes());
            bytes.extend(b": ");
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", self.body.len()).into_bytes());
        bytes.extend(&self.body);
        bytes
    }

    pub(super) fn refused(
        &self,
        wrong: String,
        (status, code): (u16, &'static str),
        pointers: Vec<String>,
    ) -> Bad {
        Bad {
            bytes: self.write(),
            wrong: format!("{} {:.80}: {wrong}", self.method, self.path),
            verdict: Verdict::Refused {
                status,
                code,
                pointers,
            },
            alone: false,
        }
    }

    fn spoilt(&self, told: Spoilt) -> Bad {
        self.refused(told.wrong, (told.status, told.code), told.pointers)
    }
}

/// Makes a submit that must be taken, in one of its forms.
#[must_use]
pub fn good_submit(chance: &mut Chance) -> Vec<u8> {
    match chance.below(5) {
        0 => {
            let items: Vec<String> = (0..chance.between(1, 4))
                .map(|_| Body::good(&[MESSAGE, &[IDEMPOTENCY]].concat(), chance).write())
                .collect();
            let body = format!("{{\"messages\":[{}]}}", items.join(","));
            Request::json("POST", "/v1/messages/batch", body.into_bytes()).write()
        }
        1 => opaque::good(chance).write(),
        2 => events::good_structured(chance).write(),
        3 => events::good_binary(chance).write(),
        _ => {
            let body = Body::good(MESSAGE, chance).write();
            Request::json("POST", "/v1/messages", body.into_bytes()).write()
        }
    }
}

/// Makes a request that must be refused, and whose connection may go on.
#[must_use]
pub fn spoilt_request(ground: &Ground, chance: &mut Chance) -> Bad {
    match chance.below(20) {
        0..=6 => body_of_a_route(ground, chance),
        7..=8 => broken_body(ground, chance),
        9..=10 => item_of_a_list(chance),
        11 => rivals(chance),
        12 => media(ground, chance),
        13 => opaque::spoilt(chance),
        14 => events::spoilt_structured(chance),
        15 => events::spoilt_binary(chance),
        16 => lines::query(ground, chance),
        17 => lines::path(ground, chance),
        18 => lines::method_or_name(ground, chance),
        _ => too_much(ground, chance),
    }
}

fn route(ground: &Ground, chance: &mut Chance) -> (&'static str, String, &'static [Field]) {
    let (method, path, fields) = *chance.pick(ROUTES);
    let lease = "01a1fcb8-fb9f-7000-8000-0000000000ff.1";
    let path = path
        .replace("{message}", &ground.message)
        .replace("{lease}", lease);
    (method, path, fields)
}

fn body_of_a_route(ground: &Ground, chance: &mut Chance) -> Bad {
    let (method, path, fields) = route(ground, chance);
    let (_, told) = spoilt(fields, chance, "");
    Request::json(method, &path, told.bytes.clone()).spoilt(told)
}

fn broken_body(ground: &Ground, chance: &mut Chance) -> Bad {
    let (method, path, fields) = route(ground, chance);
    let told = broken(fields, chance);
    Request::json(method, &path, told.bytes.clone()).spoilt(told)
}

/// Spoils one thing of a list, or the list itself.
fn item_of_a_list(chance: &mut Chance) -> Bad {
    let (method, path, name, fields) = *chance.pick(LISTS);
    let good = |chance: &mut Chance| Body::good(fields, chance).write();
    if chance.one_in(5) {
        let (list, pointer) = match chance.below(4) {
            0 => ("{}".to_owned(), format!("/{name}")),
            1 => (vec!["{}"; 1_001].join(","), format!("/{name}")),
            2 => ("\"x\"".to_owned(), format!("/{name}")),
            _ => (format!("[{},7]", good(chance)), format!("/{name}/1")),
        };
        let list = if list.starts_with("{},") {
            format!("[{list}]")
        } else {
            list
        };
        let body = format!("{{\"{name}\":{list}}}").into_bytes();
        let request = Request::json(method, path, body);
        return request.refused(
            "no such list".to_owned(),
            (422, "invalid_field"),
            vec![pointer],
        );
    }
    let before = chance.below(4);
    let mut items: Vec<String> = (0..before).map(|_| good(chance)).collect();
    let (body, mut told) = spoilt(fields, chance, &format!("/{name}/{before}"));
    items.push(body.write());
    items.extend((0..chance.below(3)).map(|_| good(chance)));
    told.bytes = format!("{{\"{name}\":[{}]}}", items.join(",")).into_bytes();
    Request::json(method, path, told.bytes.clone()).spoilt(told)
}

/// Gives fields beside each other that exclude each other, or times that cannot be.
fn rivals(chance: &mut Chance) -> Bad {
    let kind = chance.name();
    let (more, pointer) = *chance.pick(&[
        (r#""due_at":"2030-01-01T00:00:00Z","delay":"1s""#, "/delay"),
        (r#""ttl":"1h","expires_at":"2030-01-01T00:00:00Z""#, "/ttl"),
        (r#""expires_at":"2020-01-01T00:00:00Z""#, "/expires_at"),
        (r#""ttl":"0s""#, "/ttl"),
        (r#""ttl":"1s","delay":"1s""#, "/ttl"),
        (
            r#""due_at":"2031-01-01T00:00:00Z","expires_at":"2030-01-01T00:00:00Z""#,
            "/expires_at",
        ),
    ]);
    let body = format!(r#"{{"kind":"{kind}",{more}}}"#).into_bytes();
    let request = Request::json("POST", "/v1/messages", body);
    let pointers = vec![pointer.to_owned()];
    request.refused(more.to_owned(), (422, "invalid_field"), pointers)
}

fn media(ground: &Ground, chance: &mut Chance) -> Bad {
    let (method, path, fields) = route(ground, chance);
    let mut request = Request::new(method, &path);
    request.body = Body::good(fields, chance).write().into_bytes();
    let types = [
        "text/plain",
        "application/xml",
        "application/json2",
        "application/jsonp; charset=utf-8",
        "json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "*/*",
        "application/cloudevents-batch+json",
        "application/ json",
        ";",
    ];
    if chance.one_in(3) {
        return request.refused(
            "does not say what it is".to_owned(),
            (415, "unsupported_media_type"),
            Vec::new(),
        );
    }
    let media = *chance.pick(&types);
    request.header("content-type", media);
    let wrong = format!("says it is {media}");
    request.refused(wrong, (415, "unsupported_media_type"), Vec::new())
}

/// Sends more than the limit: a payload, or a whole body.
fn too_much(ground: &Ground, chance: &mut Chance) -> Bad {
    let whole = chance.one_in(2);
    let length = if whole {
        chance.between(ground.body_max + 1, ground.body_max + 20_000)
    } else {
        chance.between(ground.payload_max, ground.payload_max + 20_000)
    };
    // The quotes count, so a payload of its limit is two bytes above it.
    let body = format!(r#"{{"kind":"a","payload":"{}"}}"#, "x".repeat(length));
    let request = Request::json("POST", "/v1/messages", body.into_bytes());
    let mut bad = request.refused(
        format!("{length} bytes"),
        (413, "payload_too_large"),
        Vec::new(),
    );
    bad.alone = whole;
    bad
}

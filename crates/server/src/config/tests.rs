//! The table of good and bad configurations.

use std::path::PathBuf;

use super::source::Given;
use super::*;

fn given(file: &str, variables: &[(&str, &str)]) -> Result<(Config, Settings), String> {
    let path = PathBuf::from("waystation.toml");
    let mut from = Given::default();
    from.files.insert(path.clone(), file.to_owned());
    from.files
        .insert(PathBuf::from("/run/token"), "  abc\n".to_owned());
    from.files
        .insert(PathBuf::from("/run/empty"), "\n".to_owned());
    from.variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let overrides = Overrides {
        file: Some(path),
        ..Overrides::default()
    };
    load(&overrides, &from).map_err(|error| error.to_string())
}

#[test]
fn the_default_file_is_the_default() {
    let parsed: Config = toml::from_str(DEFAULT_TOML).expect("it parses");
    assert_eq!(parsed, Config::default());
    assert_eq!(
        toml::from_str::<Config>("").expect("it parses"),
        Config::default()
    );
}

#[test]
fn the_examples_in_the_default_file_are_good_and_are_the_defaults() {
    let text: String = DEFAULT_TOML
        .lines()
        .filter(|line| !line.starts_with("#token_file"))
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let variables = [
        ("SMTP_TOKEN", "Bearer x"),
        ("SMTP_SECRET", "whsec_c2VjcmV0"),
    ];
    let (config, settings) = given(&text, &variables).expect("it is good");
    assert_eq!(
        config.kinds.len() + config.destinations.len() + config.queues.len(),
        3
    );
    let kind = &settings.policies.kinds[0].1;
    let defaults = waystation_core::policy::KindPolicy::default();
    assert_eq!(
        (kind.attempt_timeout, &kind.backoff, kind.give_up_after),
        (
            defaults.attempt_timeout,
            &defaults.backoff,
            defaults.give_up_after
        )
    );
    let smtp = settings.policies.destinations.values().next().expect("one");
    assert_eq!(
        smtp.circuit,
        waystation_core::policy::CircuitPolicy::default()
    );
    assert_eq!(
        settings.routes[0].endpoint.url,
        "http://127.0.0.1:9000/send"
    );
    assert_eq!(
        settings.routes[0].endpoint.health.as_deref(),
        Some("http://127.0.0.1:9000/health")
    );
}

/// Says that a file is refused with these texts in the message.
fn check_bad(file: &str, expected: &[&str]) {
    let error = given(file, &[]).expect_err(file);
    for text in expected {
        assert!(
            error.contains(text),
            "{file}\n--- gives\n{error}\n--- without {text:?}"
        );
    }
}

#[test]
fn a_mistyped_key_is_shown_with_its_place_and_the_key_that_was_meant() {
    let error = given("[server]\nlistn = \"127.0.0.1:3000\"\n", &[]).expect_err("bad");
    assert_eq!(
        error,
        "waystation.toml: TOML parse error at line 2, column 1\n  |\n2 | listn = \"127.0.0.1:3000\"\n  | ^^^^^\n\
         unknown field `listn`, expected one of `listen`, `token`, `token_file`, `insecure`, `hosts`, `slots`, \
         `payload_max`, `submit_rate`, `connections_max`, `header_timeout`, `body_timeout`\ndid you mean `listen`?\n"
    );
}

#[test]
fn every_place_that_is_no_toml_is_shown() {
    let error = given(
        "[server]\nslots = = 3\n[log]\nlevel = \"info\nformat = @\n",
        &[],
    )
    .expect_err("bad");
    let places = error.matches("TOML parse error at line").count();
    assert!(places >= 3, "{error}");
    for place in ["line 2", "line 4", "line 5"] {
        assert!(error.contains(place), "{place} in {error}");
    }
    let many = given(&"a = = 1\n".repeat(90), &[]).expect_err("bad");
    assert!(many.lines().count() < 150, "{many}");
    assert!(many.ends_with(" more"), "{many}");
}

#[test]
fn a_destination_that_is_not_declared_is_warned_of() {
    let toml = |name: &str| {
        format!(
            "[destinations.smtp]\nurl = \"http://127.0.0.1:9\"\n[kinds.\"email.*\"]\ndestination = \"{name}\"\n"
        )
    };
    let warned = |text: &str| {
        let config: Config = toml::from_str(text).expect("good");
        super::warnings(&config)
    };
    assert_eq!(warned(&toml("smtp")), Vec::<String>::new());
    let warnings = warned(&toml("smtpx"));
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("did you mean \"smtp\"?"),
        "{warnings:?}"
    );
}

#[test]
fn what_only_the_whole_shows_has_its_place_too() {
    let error = given("[queues.default]\nrate = \"5/s\"\nconcurrency = 0\n", &[]).expect_err("bad");
    assert_eq!(
        error,
        "waystation.toml: error at line 3, column 15\n  |\n3 | concurrency = 0\n  |               ^\nqueues.default.concurrency is 0; allowed are 1 to 65536"
    );
}

const BAD: &[(&str, &[&str])] = &[
    ("[server", &["line 1"]),
    (
        "[sever]\n",
        &["unknown field `sever`", "did you mean `server`?"],
    ),
    (
        "[server]\nlisten = 3000\n",
        &["line 2", "an address with a port"],
    ),
    (
        "[server]\nlisten = \"3000\"\n",
        &["is no address with a port: \"3000\"", "127.0.0.1:3000"],
    ),
    (
        "[server]\nlisten = \"0.0.0.0:3000\"\n",
        &[
            "server.listen is 0.0.0.0:3000",
            "token_file",
            "insecure = true",
        ],
    ),
    (
        "[server]\ntoken = \"a\"\ntoken_file = \"/run/token\"\n",
        &["server.token_file is given beside server.token"],
    ),
    (
        "[server]\ntoken_file = \"/nowhere\"\n",
        &["server.token_file cannot read /nowhere"],
    ),
    (
        "[server]\ntoken_file = \"/run/empty\"\n",
        &["/run/empty holds no secret: it is empty"],
    ),
    (
        "[server]\ntoken = { env = \"NOT_SET\" }\n",
        &["NOT_SET is not set"],
    ),
    (
        "[server]\ntoken = { evn = \"X\" }\n",
        &["unknown field `evn`, expected `env` or `file`"],
    ),
    (
        "[server]\ntoken = { env = \"X\", file = \"y\" }\n",
        &["a text, { env"],
    ),
    (
        "[server]\nhosts = [\"http://x\"]\n",
        &["\"http://x\", which is no host name"],
    ),
    (
        "[server]\nslots = 0\n",
        &["server.slots is 0; allowed are 1 to 65536"],
    ),
    ("[server]\nslots = -1\n", &["line 2"]),
    ("[server]\nslots = \"many\"\n", &["expected u32"]),
    ("[server]\npayload_max = \"1GB\"\n", &["is no size"]),
    (
        "[server]\npayload_max = \"65MiB\"\n",
        &["\"1B\" to \"64MiB\""],
    ),
    (
        "[server]\nheader_timeout = \"31s\"\n",
        &["\"1ms\" to \"30s\""],
    ),
    ("[server]\nbody_timeout = \"0s\"\n", &["\"1ms\" to \"30s\""]),
    (
        "[log]\nlevel = \"loud\"\n",
        &["unknown variant `loud`", "`debug`"],
    ),
    ("[log]\nformat = \"jsn\"\n", &["did you mean `json`?"]),
    (
        "[store]\nurl = \"postgres://x\"\n",
        &["store.url names a postgres store, which this build has not"],
    ),
    ("[store]\nurl = \"mysql://x\"\n", &["a mysql store"]),
    ("[store]\nurl = \"redis://x\"\n", &["a redis store"]),
    ("[store]\nurl = \"file.db\"\n", &["store.url is no store"]),
    (
        "[store]\nretention = { completed = \"soon\" }\n",
        &["is no duration"],
    ),
    (
        "[store]\nretention = { complete = \"1d\" }\n",
        &["did you mean `completed`?"],
    ),
    ("[queues.\"a b\"]\n", &["queues.\"a b\" is no name", "' '"]),
    ("[queues.q]\nrate = \"fast\"\n", &["is no rate"]),
    ("[queues.q]\nrate = \"2000000/s\"\n", &["1000000/s"]),
    (
        "[queues.q]\non_dead_head = \"wait\"\n",
        &["`block`", "`skip`"],
    ),
    (
        "[queues.q]\ndead_budget = 0\n",
        &["allowed are 1 to 1000000"],
    ),
    (
        "[destinations.d]\nurl = \"ftp://x\"\n",
        &["does not begin with http:// or https://"],
    ),
    (
        "[destinations.d]\nurl = \"http://user:pw@x\"\n",
        &["credentials", "headers"],
    ),
    (
        "[destinations.d]\nurl = \"http://x/?a=b\"\n",
        &["a query or a fragment"],
    ),
    (
        "[destinations.d]\nurl = \"nonsense\"\n",
        &["destinations.d.url is no URL"],
    ),
    (
        "[destinations.d]\nhealth = \"/h\"\n",
        &["destinations.d.health needs destinations.d.url"],
    ),
    (
        "[destinations.d]\nurl = \"http://x\"\nhealth = \"h\"\n",
        &["is no path: \"h\""],
    ),
    (
        "[destinations.d]\nheaders = { \"a b\" = \"c\" }\n",
        &["is no header name"],
    ),
    (
        "[destinations.d]\nheaders = { Host = \"c\" }\n",
        &["is set by the handler protocol itself"],
    ),
    (
        "[destinations.d]\nheaders = { Waystation-Id = \"c\" }\n",
        &["is set by the handler protocol itself"],
    ),
    (
        "[destinations.d]\nconcurrency = 0\n",
        &["allowed are 1 to 65536"],
    ),
    (
        "[destinations.d]\ntimeout = { connect = \"2h\" }\n",
        &["timeout.connect is \"2h\"; allowed are \"1ms\" to \"1h\""],
    ),
    (
        "[destinations.d]\ncircuit = { failure_rate = 1.5 }\n",
        &["a share from 0 (off) to 1"],
    ),
    (
        "[destinations.d]\ncircuit = { consecutve = 1 }\n",
        &["did you mean `consecutive`?"],
    ),
    (
        "[destinations.d]\ncircuit = { minimum = 0 }\n",
        &["circuit.minimum is 0"],
    ),
    (
        "[destinations.d]\ncircuit = { open_for = \"0s\" }\n",
        &["circuit.open_for is \"0s\""],
    ),
    (
        "[destinations.d]\nretry_after_max = \"2d\"\n",
        &["retry_after_max is \"2d\""],
    ),
    (
        "[destinations.d]\nretries = 3\n",
        &["unknown field `retries`"],
    ),
    ("[kinds.\"a*b\"]\n", &["kinds.\"a*b\"", "email.*"]),
    (
        "[kinds.k]\npath = \"/x\"\n",
        &["kinds.k.path needs destinations.k.url"],
    ),
    (
        "[kinds.k]\ndestination = \"a b\"\n",
        &["kinds.k.destination is no name"],
    ),
    (
        "[kinds.k]\non_dead = \"\"\n",
        &["kinds.k.on_dead is no name: it must not be empty"],
    ),
    ("[kinds.k]\nmax_attempts = 101\n", &["allowed are 1 to 100"]),
    (
        "[kinds.k]\nterminal_retries = 101\n",
        &["allowed are 0 to 100"],
    ),
    (
        "[kinds.k]\nattempt_timeout = \"25h\"\n",
        &["kinds.k.attempt_timeout is \"1d1h\""],
    ),
    (
        "[kinds.k]\noutcomes = { 99 = \"complete\" }\n",
        &["99 is no status", "200 to 599"],
    ),
    (
        "[kinds.k]\noutcomes = { 409 = \"done\" }\n",
        &["unknown variant `done`"],
    ),
    (
        "[kinds.k]\nbackoff = { fixed = \"1s\", linear = \"1s\" }\n",
        &["more than one of"],
    ),
    (
        "[kinds.k]\nbackoff = { factor = 2 }\n",
        &["factor is for exponential alone"],
    ),
    (
        "[kinds.k]\nbackoff = { exponential = \"1s\", factor = 0.5 }\n",
        &["allowed are 1 to 100"],
    ),
    (
        "[kinds.k]\nbackoff = { fixed = \"1s\", max = \"2s\" }\n",
        &["max is for linear and exponential alone"],
    ),
    (
        "[kinds.k]\nbackoff = { random = [\"2s\", \"1s\"] }\n",
        &["the shorter first"],
    ),
    (
        "[kinds.k]\nbackoff = { random = [\"2s\"] }\n",
        &["two durations"],
    ),
    (
        "[kinds.k]\nbackoff = { schedule = [] }\n",
        &["has 0 entries; allowed are 1 to 100"],
    ),
    (
        "[kinds.k]\nbackoff = { jitter = \"some\" }\n",
        &["unknown variant `some`"],
    ),
    (
        "[kinds.k]\nbackoff = { immediate = 101 }\n",
        &["allowed are 0 to 100"],
    ),
];

#[test]
fn bad_files_are_refused_with_the_key_the_limit_and_the_way_out() {
    for (file, expected) in BAD {
        check_bad(file, expected);
    }
}

#[test]
fn every_key_has_a_name_in_the_environment_and_the_environment_wins() {
    let file = "[server]\nslots = 1\n[destinations.smtp]\nurl = \"http://x\"\nheaders = { X-Tenant = \"file\" }\n\
                [kinds.\"email.*\"]\ndestination = \"smtp\"\n";
    let (config, settings) = given(
        file,
        &[
            ("WAYSTATION_SERVER__SLOTS", "7"),
            ("WAYSTATION_SERVER__TOKEN", "12345"),
            ("WAYSTATION_SERVER__HOSTS", "[\"a.example\"]"),
            ("WAYSTATION_STORE__URL", "memory:"),
            ("WAYSTATION_STORE__RETENTION__DEAD", "30d"),
            ("WAYSTATION_QUEUES__BULK__RATE", "5/s"),
            ("WAYSTATION_DESTINATIONS__SMTP__CIRCUIT__CONSECUTIVE", "9"),
            ("WAYSTATION_DESTINATIONS__SMTP__HEADERS__X_TENANT", "true"),
            ("WAYSTATION_DESTINATIONS__SMTP__HEADERS__X_NEW", "n"),
            ("WAYSTATION_KINDS__EMAIL____PATH", "/send"),
            ("WAYSTATION_KINDS__EMAIL____OUTCOMES__409", "complete"),
            ("WAYSTATION_PORT", "tcp://10.0.0.1:3000"),
        ],
    )
    .expect("it is good");
    assert_eq!(settings.slots, 7);
    assert_eq!(
        secrecy::ExposeSecret::expose_secret(settings.token.as_ref().expect("a token")),
        "12345"
    );
    assert_eq!(settings.hosts, ["a.example"]);
    assert_eq!(settings.store, StoreChoice::Memory);
    assert_eq!(
        settings.policies.retention.dead,
        Some(std::time::Duration::from_secs(30 * 86_400))
    );
    assert_eq!(config.queues.keys().collect::<Vec<_>>(), ["bulk"]);
    assert_eq!(
        settings
            .policies
            .destinations
            .values()
            .next()
            .expect("one")
            .circuit
            .consecutive,
        9
    );
    let endpoint = &settings.routes[0].endpoint;
    assert_eq!(endpoint.url, "http://x/send");
    assert_eq!(
        endpoint
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["X-Tenant", "x-new"]
    );
    assert_eq!(
        endpoint.outcomes.get(&409),
        Some(&waystation::http::Override::Complete)
    );
}

#[test]
fn a_variable_that_does_not_fit_is_named() {
    let error = given("", &[("WAYSTATION_SERVER__LISTN", "x")]).expect_err("bad");
    assert!(
        error.contains("environment variable WAYSTATION_SERVER__LISTN: unknown field `listn`"),
        "{error}"
    );
    assert!(error.contains("did you mean `listen`?"), "{error}");
    let error = given("", &[("WAYSTATION_SERVER__SLOTS", "many")]).expect_err("bad");
    assert!(error.contains("WAYSTATION_SERVER__SLOTS"), "{error}");
    let error = given("", &[("WAYSTATION_SERVER__SLOTS", "1\nlisten = 2")]).expect_err("bad");
    assert!(error.contains("WAYSTATION_SERVER__SLOTS"), "{error}");
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = "[server]\ntoken = \"swordfish\"\n[destinations.d]\nurl = \"http://x\"\nsecret = \"whsec_c3dvcmRmaXNo\"\n\
                headers = { Authorization = \"swordfish\", Other = { env = \"OTHER\" } }\n[kinds.k]\ndestination = \"d\"\n";
    let (config, settings) = given(file, &[("OTHER", "swordfish")]).expect("it is good");
    let shown = format!(
        "{}{config:?}{settings:?}",
        show(&config).expect("it can be shown")
    );
    assert!(
        !shown.contains("swordfish") && !shown.contains("c3dvcmRmaXNo"),
        "{shown}"
    );
    assert!(
        shown.contains("token = \"[redacted]\"") && shown.contains("env = \"OTHER\""),
        "{shown}"
    );
}

#[test]
fn the_short_form_of_a_handler_names_its_destination_after_the_host() {
    let overrides = Overrides {
        handlers: vec![
            "email.*=http://127.0.0.1:9000/email".to_owned(),
            "sms=http://127.0.0.1:9000".to_owned(),
        ],
        data: Some(PathBuf::from("/data")),
        ..Overrides::default()
    };
    let (_, settings) = load(&overrides, &Given::default()).expect("it is good");
    assert_eq!(
        settings.store,
        StoreChoice::Sqlite(PathBuf::from("/data/waystation.db"))
    );
    let urls: Vec<(&str, &str)> = settings
        .routes
        .iter()
        .map(|it| (it.destination.as_str(), it.endpoint.url.as_str()))
        .collect();
    assert_eq!(
        urls,
        [
            ("127.0.0.1-9000", "http://127.0.0.1:9000/email"),
            ("127.0.0.1-9000", "http://127.0.0.1:9000/")
        ]
    );
    assert!(
        settings
            .policies
            .kinds
            .iter()
            .all(|(_, policy)| policy.remote)
    );
    let own = Overrides {
        handlers: vec![
            "a=http://localhost:9000/a".to_owned(),
            "b=http://db.internal/b".to_owned(),
        ],
        ..Overrides::default()
    };
    let (_, settings) = load(&own, &Given::default()).expect("it is good");
    let allowed: Vec<bool> = settings
        .routes
        .iter()
        .map(|it| it.endpoint.allow_private)
        .collect();
    assert_eq!(allowed, [true, false]);
    for bad in ["email", "email=nonsense", "a b=http://x"] {
        let overrides = Overrides {
            handlers: vec![bad.to_owned()],
            ..Overrides::default()
        };
        load(&overrides, &Given::default()).expect_err(bad);
    }
}

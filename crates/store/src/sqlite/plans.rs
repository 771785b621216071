//! Holds the plan of every statement whose cost must not grow with what waits: no table is scanned,
//! and nothing is sorted.

use rusqlite::Connection;

use super::{
    claims, extend, heal, lease, lines, list, migrate, operate, pick, prune, rows, settle,
};

fn plan(db: &Connection, sql: &str) -> String {
    let mut statement = db
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let steps = statement
        .raw_query()
        .mapped(|row| row.get::<_, String>(3))
        .collect::<Result<Vec<_>, _>>()
        .expect("explains");
    steps.join("; ")
}

fn database() -> Connection {
    let mut db = Connection::open_in_memory().expect("opens");
    migrate::migrate(&mut db).expect("migrates");
    db
}

#[test]
fn hot_statements_scan_no_table_and_sort_nothing() {
    let db = database();
    let hot = [
        (rows::SELECT, "INTEGER PRIMARY KEY"),
        (rows::SELECT_PLAIN, "INTEGER PRIMARY KEY"),
        (lease::LEASE, "INTEGER PRIMARY KEY"),
        (settle::COMPLETE, "INTEGER PRIMARY KEY"),
        (pick::FIRST_FROM_LEVEL, "message_ready"),
        (pick::DUE_OF_LEVEL, "message_ready"),
        (lines::HEADS, "extra_line"),
        (claims::EXPIRED, "claim_expiry"),
        (claims::LOST, "claim_lost"),
        (claims::NEXT_EXPIRY, "claim_expiry"),
        (extend::GRACE_OVER, "extra_grace"),
        (extend::NEXT_GRACE, "extra_grace"),
        (heal::EXPIRED, "extra_expiry"),
        (heal::BLAMED, "extra_blamed"),
        (prune::FINISHED, "INTEGER PRIMARY KEY"),
        (operate::PARKED, "extra_held"),
        (list::NEWEST, "INTEGER PRIMARY KEY"),
        (list::OF_KEY, "extra_key"),
        (list::OF_FINGERPRINT, "extra_fingerprint"),
        (list::PARKED_OF_LANE, "extra_held"),
        (list::DEAD_OF_LANE, "extra_held"),
    ];
    for (sql, way) in hot {
        let plan = plan(&db, sql);
        assert!(
            plan.contains("SEARCH") && plan.contains(way),
            "{sql}\n{plan}"
        );
        assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

#[test]
fn what_walks_an_index_from_its_start_stops_at_its_limit() {
    let db = database();
    for (sql, index) in [
        (heal::NEXT_EXPIRY, "extra_expiry"),
        (claims::EXPIRED_UP_TO, "claim_expiry"),
        (claims::LOST_UP_TO, "claim_lost"),
    ] {
        let plan = plan(&db, sql);
        assert!(
            sql.contains("LIMIT") && plan.contains(index),
            "{sql}\n{plan}"
        );
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

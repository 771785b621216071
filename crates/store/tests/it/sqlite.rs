//! The suite on SQLite, and what only a file can show.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use waystation_core::message::NodeId;
use waystation_store::Store;
use waystation_store::conformance::Harness;
use waystation_store::sqlite::{Options, SqliteStore};
use waystation_store::store_conformance;

use crate::model::agrees_with_the_model;

/// A file in a directory of its own; dropping a store without `leave` looks like kill -9 to others.
pub(crate) struct SqliteHarness {
    dir: TempDir,
    store: Option<Arc<dyn Store>>,
    others: std::sync::Mutex<Vec<Arc<dyn Store>>>,
}

impl SqliteHarness {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir);
        Self {
            dir,
            store: Some(store),
            others: std::sync::Mutex::default(),
        }
    }
}

fn open(dir: &TempDir) -> Arc<dyn Store> {
    SqliteStore::open(dir.path().join("store.db"), Options::default()).expect("opens")
}

#[async_trait]
impl Harness for SqliteHarness {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("is open")
    }

    async fn attach(&self) -> Arc<dyn Store> {
        let store = open(&self.dir);
        self.others.lock().expect("unpoisoned").push(Arc::clone(&store));
        store
    }

    async fn reopen(&mut self) {
        self.others.lock().expect("unpoisoned").clear();
        self.store = None;
        self.store = Some(open(&self.dir));
    }

    async fn kill(&self, _node: NodeId) -> bool {
        self.others.lock().expect("unpoisoned").clear();
        true
    }
}

store_conformance!(SqliteHarness::new());

#[test]
fn sqlite_is_not_told_apart_from_the_model() {
    agrees_with_the_model(24, 120, async || {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir);
        (store, dir)
    });
}

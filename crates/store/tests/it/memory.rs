//! The suite on the model.

use std::sync::Arc;

use async_trait::async_trait;
use waystation_core::message::NodeId;
use waystation_store::Store;
use waystation_store::conformance::Harness;
use waystation_store::memory::Memory;
use waystation_store::store_conformance;

/// The model has no file: what survives its processes is what another handle sees.
pub(crate) struct MemoryHarness(Arc<Memory>);

impl MemoryHarness {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Memory::new()))
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as Arc<dyn Store>
    }

    async fn attach(&self) -> Arc<dyn Store> {
        Arc::new(self.0.attach())
    }

    async fn reopen(&mut self) {
        self.0 = Arc::new(self.0.attach());
    }

    async fn kill(&self, node: NodeId) -> bool {
        self.0.kill(node);
        true
    }
}

store_conformance!(MemoryHarness::new());

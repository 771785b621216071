//! How a station is put together before it starts.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use waystation_core::message::WorkerName;
use waystation_core::name::KindPattern;
use waystation_core::node::Options;
use waystation_core::policy::Policies;
use waystation_store::Store;

use crate::Context;
use crate::error::{Error, HandlerError};
use crate::execute::Function;
use crate::handler::Handler;
use crate::shell::{Registry, Shell};
use crate::station::Station;
use crate::world::{SystemWorld, World};

/// The handlers that run at once in one process, where nothing else is said.
pub const SLOTS: u32 = 256;
/// How long a lease is before it must be renewed, where nothing else is said.
pub const LEASE: Duration = Duration::from_secs(30);

type Wrap = Box<dyn FnOnce(&Arc<Policies>) -> (KindPattern, Arc<dyn Handler>) + Send>;

enum Place {
    Url(String),
    Store(Arc<dyn Store>),
}

/// A station that has not started. Errors in names are kept until [`Builder::start`].
pub struct Builder {
    place: Place,
    handlers: Vec<Wrap>,
    policies: Policies,
    slots: u32,
    lease: Duration,
    world: Option<Arc<dyn World>>,
    worker: WorkerName,
    wrong: Option<Error>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self::at(Place::Url(url.to_owned()))
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self::at(Place::Store(store))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            handlers: Vec::new(),
            policies: Policies::default(),
            slots: SLOTS,
            lease: LEASE,
            world: None,
            worker: format!("pid-{}", std::process::id()).into(),
            wrong: None,
        }
    }

    /// Handles a kind (`email.send`) or all that begin alike (`email.*`) with an async function over
    /// a payload read from JSON. A payload that cannot be read is refused for good.
    #[must_use]
    pub fn handle<T, F, R>(self, pattern: &str, function: F) -> Self
    where
        F: Fn(T, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let pattern = match KindPattern::new(pattern) {
            Ok(pattern) => pattern,
            Err(error) => {
                return self.mistaken(Error::Name {
                    what: "kind",
                    error,
                });
            }
        };
        self.with(Box::new(move |policies| {
            let handler: Arc<dyn Handler> = Arc::new(Function::new(function, Arc::clone(policies)));
            (pattern, handler)
        }))
    }

    /// Handles all kinds of a pattern with a handler of one's own making.
    #[must_use]
    pub fn handler(self, pattern: KindPattern, handler: Arc<dyn Handler>) -> Self {
        self.with(Box::new(move |_| (pattern, handler)))
    }

    /// Replaces the policies, all defaults until then.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// Sets how many handlers run at once in this process; [`SLOTS`] until then.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// Sets how long leases of this process's handlers are; [`LEASE`] until then.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// Sets the name of this process for people; `pid-<number>` until then.
    #[must_use]
    pub fn worker(mut self, name: &str) -> Self {
        self.worker = name.into();
        self
    }

    /// Replaces clock, chance and listener.
    #[must_use]
    pub fn world(mut self, world: Arc<dyn World>) -> Self {
        self.world = Some(world);
        self
    }

    /// Opens the store, becomes a node of it, and starts working.
    ///
    /// # Errors
    /// A wrong name given before, or a store that does not open.
    pub async fn start(self) -> Result<Station, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let world = self
            .world
            .unwrap_or_else(|| Arc::new(SystemWorld::default()));
        let store = match self.place {
            Place::Url(url) => waystation_store::open(&url).await?,
            Place::Store(store) => store,
        };
        let policies = Arc::new(self.policies);
        let registry = Registry::new(
            self.handlers
                .into_iter()
                .map(|wrap| wrap(&policies))
                .collect(),
        );
        let node = store.join(&self.worker, world.now()).await?;
        let options = Options {
            node,
            worker: self.worker,
            kinds: registry.patterns(),
            slots: self.slots,
            lease: self.lease,
            policies,
        };
        Ok(Shell::start(store, world, registry, options))
    }

    fn with(mut self, wrap: Wrap) -> Self {
        self.handlers.push(wrap);
        self
    }

    fn mistaken(mut self, error: Error) -> Self {
        self.wrong.get_or_insert(error);
        self
    }
}

//! Posts messages to HTTP endpoints: one request for each attempt, no hidden retry, no redirect.
//!
//! ```text
//!   handle ─▶ request ─▶ pool ──(none alive)──▶ connect: name ▶ guard ▶ TCP ▶ TLS
//!                          └──────▶ wire: one exchange ◀───────┘
//!                                     │ answer            │ fault
//!                                     ▼                   ▼
//!                                answer: header, outcomes, table ─▶ outcome and evidence
//! ```

mod address;
mod answer;
mod connect;
mod endpoint;
mod fault;
mod limits;
mod pool;
mod request;
mod resolve;
mod sign;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio_util::sync::CancellationToken;
use waystation_core::exchange::Delivery;
use waystation_core::outcome::{Finding, Outcome};

use self::answer::{Answer, Rules};
use self::connect::Connector;
use self::endpoint::Target;
use self::fault::Fault;
use self::limits::{Watch, within};
use self::pool::Pool;
use self::request::Letterhead;
use self::resolve::{Shared, System};
use self::sign::Signer;
use self::wire::Broken;
use crate::handler::{Finished, Handler};
use crate::world::World;

pub use self::address::Reach;
pub use self::address::reach;
pub use self::endpoint::Endpoint;
pub use self::endpoint::EndpointError;
pub use self::endpoint::Override;
pub use self::endpoint::SecretValue;
pub use self::resolve::Resolve;

/// How near its end an attempt counts as out of time when it is cancelled: the engine's clock for it
/// started a little before ours.
const CANCEL_SLACK: Duration = Duration::from_millis(100);

/// Handles messages by posting them to an endpoint. An attempt is one POST on the wire at most; it is
/// bounded in time by the endpoint's time-outs, in memory by about 64 KiB of answer.
#[derive(Debug)]
pub struct HttpHandler {
    letterhead: Letterhead,
    health: Option<Target>,
    rules: Rules,
    request_timeout: Duration,
    connector: Connector,
    pool: Pool,
    world: Arc<dyn World>,
}

impl HttpHandler {
    /// Makes the handler of an endpoint. Connects nowhere; the first attempt does.
    ///
    /// # Errors
    /// Says what is wrong with the endpoint, in words for its operator.
    pub fn new(endpoint: Endpoint, world: Arc<dyn World>) -> Result<Self, EndpointError> {
        let allow_private = endpoint.allow_private;
        let target = Target::parse(&endpoint.url, allow_private)?;
        let health = endpoint
            .health
            .as_ref()
            .map(|health| Target::parse_at(&endpoint.url, health, allow_private))
            .transpose()?;
        if let Some(status) = endpoint.outcomes.keys().find(|s| !(200..=599).contains(*s)) {
            return Err(EndpointError::Status { status: *status });
        }
        for (name, timeout) in [
            ("connect_timeout", endpoint.connect_timeout),
            ("request_timeout", endpoint.request_timeout),
            ("attempt_timeout", endpoint.attempt_timeout),
        ] {
            if timeout.is_zero() {
                return Err(EndpointError::Timeout { name });
            }
        }
        let is_secure = target.secure || health.as_ref().is_some_and(|health| health.secure);
        let tls = match endpoint.tls {
            Some(tls) => Some(tls),
            None if is_secure => Some(connect::system_trust()?),
            None => None,
        };
        Ok(Self {
            letterhead: Letterhead {
                target,
                headers: endpoint::headers(&endpoint.headers)?,
                signer: Signer::new(&endpoint.secrets)?,
                attempt_timeout: endpoint.attempt_timeout,
            },
            health,
            rules: Rules {
                outcomes: endpoint.outcomes,
                retry_after_max: endpoint.retry_after_max,
            },
            request_timeout: endpoint.request_timeout,
            connector: Connector {
                resolver: Shared::new(Arc::new(System::default())),
                tls,
                allow_private,
                timeout: endpoint.connect_timeout,
            },
            pool: Pool::default(),
            world,
        })
    }

    /// Resolves names by `resolver` instead of the system's. What it finds is checked all the same.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.connector.resolver = Shared::new(resolver);
        self
    }

    /// Closes connections that have waited too long; gives how many still wait. Each attempt does so
    /// too: this is for an endpoint that has gone quiet.
    pub fn close_idle(&self) -> usize {
        self.pool.close_old()
    }

    /// Runs the attempt to its end.
    async fn attempt(&self, delivery: &Delivery) -> Result<Answer, Fault> {
        let request = self.letterhead.request(delivery, self.world.now())?;
        let watch = Watch::start();
        while let Some(link) = self.pool.take() {
            let left = watch.left(self.request_timeout);
            match within(left, link.exchange(request.clone())).await {
                Some(Ok((answer, link))) => {
                    self.keep(link);
                    return Ok(answer);
                }
                Some(Err(Broken::Fault(fault))) => return Err(fault),
                // Closed by the peer while it waited: not a byte was written, so this is no retry.
                Some(Err(Broken::Unsent)) => {}
                None => return Err(Fault::Timeout(self.request_timeout)),
            }
        }
        let (answer, link) = self
            .exchange_fresh(&self.letterhead.target, request)
            .await?;
        self.keep(link);
        Ok(answer)
    }

    async fn exchange_fresh(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<wire::Link>), Fault> {
        let link = self.connector.open(target).await?;
        match within(self.request_timeout, link.exchange(request)).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(Broken::Fault(fault))) => Err(fault),
            Some(Err(Broken::Unsent)) => Err(Fault::Reset("closed at once".to_owned())),
            None => Err(Fault::Timeout(self.request_timeout)),
        }
    }

    fn keep(&self, link: Option<wire::Link>) {
        if let Some(link) = link {
            self.pool.put(link);
        }
    }

    /// Says what a cancelled attempt was: out of time if its time was over, else handed back.
    fn cancelled(&self, delivery: &Delivery, watch: Watch) -> Finished {
        let timeout = self.letterhead.attempt_timeout;
        let is_over = watch.elapsed() + CANCEL_SLACK >= timeout
            || self.world.now() >= delivery.started_at + timeout;
        if is_over {
            return Fault::Timeout(timeout).finished(&self.letterhead.target);
        }
        Finished {
            outcome: Outcome::HandedBack,
            finding: Finding::NOTHING,
        }
    }
}

#[async_trait]
impl Handler for HttpHandler {
    async fn handle(&self, delivery: &Delivery, cancel: &CancellationToken) -> Finished {
        let watch = Watch::start();
        let timeout = self.letterhead.attempt_timeout;
        let ended = tokio::select! {
            biased;
            ended = within(timeout, self.attempt(delivery)) => ended,
            () = cancel.cancelled() => return self.cancelled(delivery, watch),
        };
        match ended {
            Some(Ok(answer)) => self.rules.read(&answer, self.world.now()),
            Some(Err(fault)) => fault.finished(&self.letterhead.target),
            None => Fault::Timeout(timeout).finished(&self.letterhead.target),
        }
    }

    /// Asks the health check within the connect and request time-outs, on a connection of its own;
    /// 2xx means well.
    async fn check_health(&self) -> Option<bool> {
        let health = self.health.as_ref()?;
        let is_own = health.is_origin_of(&self.letterhead.target);
        let headers = is_own.then_some(&self.letterhead.headers);
        let asked = self.exchange_fresh(health, request::health(health, headers));
        let answer = asked.await.ok();
        Some(answer.is_some_and(|(answer, _)| answer.status.is_success()))
    }

    fn rest(&self) {
        self.close_idle();
    }
}

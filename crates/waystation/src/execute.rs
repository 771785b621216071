//! Runs one attempt of a handler: bounded in time, cancellable, its panic an outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use waystation_core::exchange::Delivery;
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::policy::Policies;

use crate::error::HandlerError;
use crate::handler::{Finished, Handler};
use crate::{Context, world};

/// How long a cancelled handler may take to end by itself before its future is dropped.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// Runs an attempt to its end, whatever that is.
pub(crate) async fn run(
    handler: Arc<dyn Handler>,
    delivery: Arc<Delivery>,
    cancel: CancellationToken,
    attempt_timeout: Duration,
) -> Finished {
    let attempt = AssertUnwindSafe(handler.handle(&delivery, &cancel)).catch_unwind();
    let cancelled = async {
        cancel.cancelled().await;
        world::sleep(CANCEL_PATIENCE).await;
    };
    tokio::select! {
        biased;
        ended = attempt => ended.unwrap_or_else(|panic| panicked(panic.as_ref())),
        () = cancelled => Finished::of_code(Outcome::HandedBack),
        () = world::sleep(attempt_timeout) => {
            cancel.cancel();
            timed_out(attempt_timeout)
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Finished {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let failure = Failure::new("panic", said.unwrap_or("the handler panicked"));
    Finished::of_code(Outcome::Panicked(failure))
}

fn timed_out(after: Duration) -> Finished {
    let failure = Failure::new(
        "timeout",
        &format!("the attempt took longer than {after:?}"),
    );
    // Either may be at fault: the destination that does not answer, or the operation that is slow.
    Finished {
        outcome: Outcome::Failed(failure),
        finding: Finding::BOTH,
    }
}

/// A handler made of an async function over a typed payload.
pub(crate) struct Function<F, T> {
    function: F,
    policies: Arc<Policies>,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<F, T> Function<F, T> {
    pub(crate) const fn new(function: F, policies: Arc<Policies>) -> Self {
        Self {
            function,
            policies,
            payload: std::marker::PhantomData,
        }
    }
}

#[async_trait]
impl<F, T, R> Handler for Function<F, T>
where
    F: Fn(T, Context) -> R + Send + Sync,
    R: Future<Output = Result<(), HandlerError>> + Send,
    T: DeserializeOwned + Send,
{
    async fn handle(&self, delivery: &Delivery, cancel: &CancellationToken) -> Finished {
        let payload = match serde_json::from_slice(&delivery.message.payload.bytes) {
            Ok(payload) => payload,
            Err(error) => {
                let failure = Failure::new("undecodable", &error.to_string());
                return Finished::of_code(Outcome::Refused(failure));
            }
        };
        let attempt_timeout = self
            .policies
            .kind(delivery.message.lane.kind())
            .attempt_timeout;
        let cx = Context::new(delivery.clone(), cancel.clone(), attempt_timeout);
        match (self.function)(payload, cx).await {
            Ok(()) => Finished::of_code(Outcome::Completed),
            Err(error) => Finished::of_code(error.into_outcome()),
        }
    }
}

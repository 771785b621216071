//! Endpoints of the configuration as handlers of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use waystation::http::HttpHandler;
use waystation::world::World;
use waystation::{Finished, Handler};
use waystation_core::exchange::Delivery;
use waystation_core::name::{Destination, KindPattern};

use super::Failure;
use crate::config::Settings;

/// Posts messages of a kind to the destination that each names, which is the kind's own unless the
/// message says otherwise.
#[derive(Debug)]
struct Routed {
    own: Arc<HttpHandler>,
    others: BTreeMap<Destination, Arc<HttpHandler>>,
}

#[async_trait]
impl Handler for Routed {
    async fn handle(&self, delivery: &Delivery, cancel: &CancellationToken) -> Finished {
        let handler = self
            .others
            .get(delivery.message.lane.destination())
            .unwrap_or(&self.own);
        handler.handle(delivery, cancel).await
    }

    async fn check_health(&self) -> Option<bool> {
        self.own.check_health().await
    }
}

/// Makes the handlers of all configured endpoints.
pub(super) fn build(
    settings: &Settings,
    world: &Arc<dyn World>,
) -> Result<Vec<(KindPattern, Arc<dyn Handler>)>, Failure> {
    let mut handlers: Vec<(KindPattern, Arc<dyn Handler>)> = Vec::new();
    for route in &settings.routes {
        let make = |destination: &Destination, endpoint: &waystation::http::Endpoint| {
            HttpHandler::new(endpoint.clone(), Arc::clone(world))
                .map(Arc::new)
                .map_err(|error| Failure::Wrong(format!("destinations.{destination}: {error}")))
        };
        let own = make(&route.destination, &route.endpoint)?;
        let others: Result<BTreeMap<_, _>, Failure> = route
            .others
            .iter()
            .map(|(destination, endpoint)| Ok((destination.clone(), make(destination, endpoint)?)))
            .collect();
        handlers.push((
            route.kinds.clone(),
            Arc::new(Routed {
                own,
                others: others?,
            }),
        ));
    }
    Ok(handlers)
}

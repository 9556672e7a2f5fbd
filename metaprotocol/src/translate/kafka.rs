//! Envoy's Kafka filter, which ordinary builds do not have: it is made only where the proxies are known to have it.

use super::zookeeper::counting;
use crate::output::Translation;
use crate::validate::Plan;

const FILTER: &str = "envoy.filters.network.kafka_broker";
const KAFKA_BROKER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.kafka_broker.v3.KafkaBroker";

/// Outputs for one port.
pub(super) fn translate(plan: &Plan<'_>) -> Translation {
    counting(plan, FILTER, KAFKA_BROKER)
}

//! Whether a run may still be stopped, and whether anybody wants it to go on.
//!
//! From [`touched`](crate::touched): whether a call has started that cannot be done twice. From its exchange: whether
//! somebody listens. To the run: a stop, or a pause before the next question to the model.

use std::time::Duration;

use fanout_agent::Cancel;
use tokio::time::timeout;

use super::exchange::Exchange;
use crate::touched::Touched;

/// Stops a run whose client is gone, once the grace is over in which somebody could have joined it.
///
/// Where something was begun that cannot be done twice the batch goes to its end; the model is not asked again before
/// somebody joins, and after `joinable` the run ends. Ends when the run is stopped.
pub(super) async fn watch(
    exchange: &Exchange,
    touched: &Touched,
    cancel: &Cancel,
    grace: Duration,
    joinable: Duration,
) {
    loop {
        exchange.abandoned().await;
        if timeout(grace, exchange.joined()).await.is_ok() {
            continue;
        }
        if touched.is_touched() {
            exchange.park(true);
            let joined = timeout(joinable, exchange.joined()).await;
            exchange.park(false);
            if joined.is_ok() {
                continue;
            }
        }
        cancel.cancel("the client is gone");
        return;
    }
}

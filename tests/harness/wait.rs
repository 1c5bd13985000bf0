//! Waiting for something to become true, with a deadline and a name. The one place in the tests where time passes.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Longest that anything may take that has to come, on a machine that has much else to do. A wait that ends well costs
/// nothing of it.
pub const LONG: Duration = Duration::from_secs(120);
/// How often the condition is looked at. Short, so that a wait costs little more than what it waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `probe` gives a value and returns it; panics with `what` after `limit`.
pub async fn wait_for<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until `probe` says yes; panics with `what` after `limit`.
pub async fn wait_until<F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    wait_for(what, limit, || {
        let answer = probe();
        async move { answer.await.then_some(()) }
    })
    .await;
}

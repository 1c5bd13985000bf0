//! Calls into the screen engine that may panic: the panic ends here, and without a word on the standard error.
//!
//! A panic is told by the process's panic hook before anybody can catch it, so a program that prints the right
//! 25 bytes could fill our log, and make it look as if we had crashed. The hook that was there before stays in force
//! for every other panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`caught`].
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Runs `call`; `None` when it panicked. What it worked on is not to be trusted then.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The thread's own values may be gone already when it panics at its end: then it is not ours.
            if !INSIDE.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outer);
    result.ok()
}

//! A panic of the screen engine is no crash of ours, and must not look like one. Alone in its program, because it
//! sets the process's panic hook.

#[path = "../src/caught.rs"]
mod caught;

use std::sync::atomic::{AtomicUsize, Ordering};

static TOLD: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_panic_of_the_engine_is_not_told_and_any_other_is() {
    std::panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::SeqCst);
    }));
    for _ in 0..10 {
        let gave_up = caught::caught(|| {
            assert!(
                caught::caught(|| panic!("the engine's")).is_none(),
                "one within another"
            );
            panic!("the engine's, again")
        });
        assert!(gave_up.is_none_or(|()| false));
    }
    assert_eq!(caught::caught(|| "still here"), Some("still here"));
    assert_eq!(
        TOLD.load(Ordering::SeqCst),
        0,
        "a program's output has written into our log"
    );
    let other = std::thread::spawn(|| panic!("not the engine's")).join();
    assert!(other.is_err());
    assert_eq!(
        TOLD.load(Ordering::SeqCst),
        1,
        "all other panics are told as before"
    );
}

//! A panic of the screen engine is no crash of ours, and must not look like one. Alone in its program, because it
//! sets the process's panic hook.

use std::sync::atomic::{AtomicUsize, Ordering};

use terminal::{Painter, Size};

static TOLD: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_panic_of_the_engine_is_not_told_and_any_other_is() {
    std::panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::SeqCst);
    }));
    let mut painter = Painter::new(Size { cols: 200, rows: 50 });
    for _ in 0..10 {
        painter.feed("\x1b[50;200H\u{2764}\u{fe0f}\x1b[49;200Hx".as_bytes());
    }
    painter.feed(b"\x1b[1;1Hstill here");
    assert_eq!(painter.screen().rows[0], "still here");
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

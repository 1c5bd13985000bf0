//! Who may hold, and what becomes of those who may not.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::Signal;
use terminal::{ATTACH_WAIT_MAX, TerminalError};
use tokio::time::Instant;

use crate::house::{
    GRACE, House, attached, exit, frame, heard, hello, lives, plan, resident_kib, say, shows, signal,
    unknown, until,
};

const REFUSED: u8 = 66;

#[tokio::test]
async fn the_core_of_a_later_launch_takes_over_and_an_older_one_is_refused() {
    let house = House::new();
    let old = house
        .shell("two", "stty -echo; echo ready; read x; echo \"got:$x:\"; read x")
        .await;
    shows(&old, "ready").await;
    let why = unknown(house.launch(1).attach("two").await);
    assert!(why.contains("another core holds it"), "{why}");
    old.resize(crate::house::SIZE).unwrap();
    let new = attached(house.launch(2).attach("two").await);
    let why = unknown(house.launch(1).attach("two").await);
    assert!(why.contains("another core holds it"), "{why}");
    let mut displaced = old.displaced();
    let told = tokio::time::timeout(crate::house::LIMIT, displaced.wait_for(|displaced| *displaced));
    assert!(told.await.is_ok(), "whoever looks after it is told");
    assert!(!*new.displaced().borrow());
    let error = old.write("mine\r").await.unwrap_err();
    assert!(matches!(error, TerminalError::LetGo { .. }), "{error}");
    let error = old.stop(GRACE).await.unwrap_err();
    assert!(matches!(error, TerminalError::LetGo { .. }), "{error}");
    assert!(
        lives(new.pid()),
        "the older core cannot end what it no longer holds"
    );
    assert!(old.exited().borrow().is_none() && !*old.lost().borrow());
    new.write("theirs\r").await.unwrap();
    shows(&new, "got:theirs:").await;
    assert!(new.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_that_does_not_answer_is_unknown_and_nothing_is_touched() {
    let house = House::new();
    let terminal = house.shell("wedged", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    let (pid, holder) = (terminal.pid(), house.holder("wedged"));
    drop(terminal);
    signal(holder, Signal::STOP);
    let before = Instant::now();
    let why = unknown(house.launch(2).attach("wedged").await);
    assert!(before.elapsed() < ATTACH_WAIT_MAX, "{:?}", before.elapsed());
    assert!(why.contains("does not answer"), "{why}");
    assert!(lives(pid) && lives(holder) && house.has_folder("wedged"));
    signal(holder, Signal::CONT);
    let terminal = attached(house.launch(3).attach("wedged").await);
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_of_another_protocol_is_unknown_in_words() {
    let house = House::new();
    let terminal = house.shell("upgraded", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    // The core of a later version.
    let mut later = house.knock("upgraded");
    say(&mut later, &hello("upgraded", 9, 3));
    let (kind, payload) = heard(&mut later);
    let words = String::from_utf8_lossy(&payload).into_owned();
    assert_eq!(kind, REFUSED, "{words}");
    assert!(
        words.contains("protocol 1 to 2") && words.contains("start version"),
        "{words}"
    );
    terminal.resize(crate::house::SIZE).unwrap();
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());

    // The holder of a later version: this test, with an answer made by hand.
    let own = std::process::id();
    let record = serde_json::json!({
        "protocol": 3, "version": "9.0.0", "boot": crate::house::boot(), "tag": "later",
        "holder": { "holder": { "pid": own, "start_ticks": crate::house::start_ticks(own) } },
        "root": null, "ended": null,
    });
    house.write_record("later", &record);
    let listener = std::os::unix::net::UnixListener::bind(house.dir().join("later/socket")).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        heard(&mut stream);
        let refused = serde_json::json!({ "kind": "protocol", "why": "this holder is of version 9.0.0" });
        stream
            .write_all(&frame(REFUSED, refused.to_string().as_bytes()))
            .unwrap();
        listener
    });
    let why = unknown(house.launch(1).attach("later").await);
    assert!(why.contains("refuses: this holder is of version 9.0.0"), "{why}");
    drop(answering.join().unwrap());
}

#[tokio::test]
async fn whatever_is_said_at_its_door_a_holder_neither_falls_nor_grows() {
    let house = House::new();
    let terminal = house
        .shell(
            "besieged",
            "stty -echo; echo ready; read x; echo \"got:$x:\"; read x",
        )
        .await;
    shows(&terminal, "ready").await;
    let holder = house.holder("besieged");
    let before = resident_kib(holder);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..500 {
        let mut stranger = house.knock("besieged");
        let noise: Vec<u8> = (0..next() % 3_000).map(|_| next() as u8).collect();
        let words = match round % 5 {
            0 => noise,
            1 => frame(next() as u8, &noise),
            2 => hello("somebody else", u64::MAX, 1),
            // A length that never comes.
            3 => u32::MAX.to_le_bytes().to_vec(),
            _ => [hello("besieged", 0, 1), noise].concat(),
        };
        // It may have been shown the door already.
        let _ = stranger.write_all(&words);
        let _ = stranger.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.len() < 1_000, "round {round}: a stranger is told too much");
    }
    assert!(
        resident_kib(holder) < before + 512,
        "{before} → {} KiB",
        resident_kib(holder)
    );
    terminal.write("still here\r").await.unwrap();
    shows(&terminal, "got:still here:").await;
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn those_who_say_nothing_do_not_keep_a_core_out_for_long() {
    let house = House::new();
    let terminal = house.shell("queue", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    drop(terminal);
    let silent: Vec<_> = (0..3).map(|_| house.knock("queue")).collect();
    let terminal = attached(house.launch(2).attach("queue").await);
    drop(silent);
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_core_that_does_not_read_does_not_stop_the_program() {
    let house = House::new();
    let script = "stty -opost; echo ready; read x; head -c 20000000 /dev/zero | tr '\\0' z; echo; echo through; exit 4";
    let first = house.shell("stuck", script).await;
    shows(&first, "ready").await;
    let pid = first.pid();
    let mut stuck = house.knock("stuck");
    say(&mut stuck, &hello("stuck", 5, 1));
    let input = [&1_u64.to_le_bytes()[..], b"\r"].concat();
    say(&mut stuck, &frame(2, &input));
    until("the program has come to its end", || !lives(pid)).await;
    let after = attached(house.launch(6).attach("stuck").await);
    assert_eq!(exit(&after).await.code, Some(4));
    assert!(after.screen().rows.iter().any(|row| row.ends_with("through")));
    assert!(after.stop(Duration::ZERO).await.unwrap().is_proven());
    drop(stuck);
}

#[tokio::test]
async fn a_core_that_reads_slowly_loses_nothing() {
    let house = House::new();
    let script = "stty -opost -echo; echo ready; read x; i=0; while [ $i -lt 400000 ]; do printf '%015d ' $i; i=$((i+1)); done";
    let first = house.shell("slow", script).await;
    shows(&first, "ready").await;
    let mut slow = house.knock("slow");
    say(&mut slow, &hello("slow", 5, 1));
    let input = [&1_u64.to_le_bytes()[..], b"\r"].concat();
    say(&mut slow, &frame(2, &input));
    let reading = tokio::task::spawn_blocking(move || {
        let (mut at, mut text, mut behind) = (0, Vec::new(), false);
        while text.len() < 400_000 * 16 + 6 {
            let (kind, payload) = heard(&mut slow);
            if kind == 67 {
                let offset = u64::from_le_bytes(payload[..8].try_into().unwrap());
                assert_eq!(offset, at, "no hole");
                at += payload.len() as u64 - 8;
                text.extend_from_slice(&payload[8..]);
                // Every 2 MB a pause, shorter than what is taken for stuck, longer than the program needs to be ahead.
                if text.len() / 2_000_000 > (text.len() + 8 - payload.len()) / 2_000_000 {
                    behind = true;
                    std::thread::park_timeout(Duration::from_millis(700));
                }
            }
        }
        assert!(behind);
        text
    });
    let text = reading.await.unwrap();
    for (number, word) in text[6..].chunks(16).enumerate() {
        assert_eq!(word, format!("{number:015} ").as_bytes());
    }
    let after = attached(house.launch(6).attach("slow").await);
    assert!(after.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_tag_that_is_held_is_not_started_twice() {
    let house = House::new();
    let terminal = house.shell("once", "echo ready; read x").await;
    let error = house
        .launch(2)
        .start(&plan("read x"), "once")
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("looked for first"), "{error}");
    assert!(lives(terminal.pid()));
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

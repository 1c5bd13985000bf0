//! A program that does not read its input: what is given up is never typed afterwards, or it is said that it may be.

use std::fs;
use std::time::Duration;

use terminal::{Terminal, TerminalError, WRITE_BYTES_MAX};

use crate::house::{GRACE, House, frame, heard, hello, lives, say, shows, until};

const INPUT_DONE: u8 = 68;

/// Reads nothing before a file is there, and then everything into another.
pub fn deaf(house: &House) -> String {
    format!(
        "stty raw -echo; echo ready; while [ ! -e {} ]; do sleep 0.05; done; exec cat > {}",
        house.file("go").display(),
        house.file("heard").display()
    )
}

fn filler() -> Vec<u8> {
    vec![b'f'; WRITE_BYTES_MAX]
}

async fn write(terminal: &Terminal, bytes: Vec<u8>) -> TerminalError {
    terminal.write(bytes).await.unwrap_err()
}

/// Behind what filled the terminal the program has read "this", and nothing that was taken back.
async fn has_read_this_alone(house: &House) {
    has_read(house, &[filler(), b"this".to_vec()].concat()).await;
}

/// The program has read `wanted` and nothing else.
pub async fn has_read(house: &House, wanted: &[u8]) {
    until("it has read everything", || {
        fs::metadata(house.file("heard")).is_ok_and(|heard| heard.len() >= wanted.len() as u64)
    })
    .await;
    assert!(
        fs::read(house.file("heard")).unwrap() == wanted,
        "not what was typed"
    );
}

#[tokio::test]
async fn input_that_was_given_up_is_never_typed_and_one_that_was_begun_is_said_to_be_unsure() {
    let house = House::new();
    let terminal = house.shell("deaf", &deaf(&house)).await;
    shows(&terminal, "ready").await;
    let (first, second) = tokio::join!(write(&terminal, filler()), async {
        // Behind the other one.
        tokio::task::yield_now().await;
        write(&terminal, b"never".to_vec()).await
    });
    assert!(matches!(first, TerminalError::Unsure { .. }), "{first}");
    assert!(matches!(second, TerminalError::Stuck { .. }), "{second}");
    // Whoever does not wait any longer does not want it either.
    let given_up = tokio::time::timeout(Duration::from_millis(50), terminal.write("nor this"));
    assert!(given_up.await.is_err());
    fs::write(house.file("go"), "").unwrap();
    terminal.write("this").await.unwrap();
    has_read_this_alone(&house).await;
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn what_a_core_that_is_gone_had_not_begun_to_type_is_not_typed() {
    let house = House::new();
    let terminal = house.shell("left", &deaf(&house)).await;
    shows(&terminal, "ready").await;
    drop(terminal);
    let mut core = house.knock("left");
    say(&mut core, &hello("left", 5, 2));
    let input = |id: u64, bytes: &[u8]| frame(2, &[&id.to_le_bytes()[..], bytes].concat());
    say(&mut core, &input(1, &filler()));
    say(&mut core, &input(2, b"never"));
    // An answer to a word behind them: both have come.
    say(&mut core, &frame(6, &99_u64.to_le_bytes()));
    let answer = std::iter::from_fn(|| Some(heard(&mut core))).find(|(kind, _)| *kind == INPUT_DONE);
    let (_, answer) = answer.unwrap();
    assert_eq!((&answer[..8], answer[8]), (&99_u64.to_le_bytes()[..], 2));
    drop(core);
    let next = crate::house::attached(house.launch(6).attach("left").await);
    // It is no answer to this core that the piece of the one before, which goes on, has begun or is through.
    let given_up = tokio::time::timeout(Duration::from_millis(50), next.write("nor this"));
    assert!(given_up.await.is_err(), "the program has read nothing");
    fs::write(house.file("go"), "").unwrap();
    next.write("this").await.unwrap();
    has_read_this_alone(&house).await;
    assert!(lives(next.pid()));
    assert!(next.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_of_the_version_before_is_spoken_with_in_its_own_words() {
    let house = House::new();
    let terminal = house
        .shell(
            "older",
            "stty -echo; echo ready; read x; echo \"got:$x:\"; read x",
        )
        .await;
    shows(&terminal, "ready").await;
    // A core of the version before, at a holder of this one.
    let mut core = house.knock("older");
    say(&mut core, &hello("older", 5, 1));
    let (kind, welcome) = heard(&mut core);
    let welcome: serde_json::Value = serde_json::from_slice(&welcome).unwrap();
    assert_eq!((kind, welcome["protocol"].as_u64()), (65, Some(1)));
    say(
        &mut core,
        &frame(2, &[&7_u64.to_le_bytes()[..], b"old\r"].concat()),
    );
    let answer = std::iter::from_fn(|| Some(heard(&mut core))).find(|(kind, _)| *kind == INPUT_DONE);
    assert_eq!(answer.unwrap().1[8], 1, "typed");
    drop(core);
    let next = crate::house::attached(house.launch(6).attach("older").await);
    shows(&next, "got:old:").await;
    assert!(next.stop(GRACE).await.unwrap().is_proven());
}

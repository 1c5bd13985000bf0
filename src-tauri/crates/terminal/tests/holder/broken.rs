//! Connections that break while both sides live: the core comes again as who it is, and goes on at the byte where it was.
//! Only a later launch takes a terminal away.

use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};
use terminal::{Terminal, TerminalError, WRITE_BYTES_MAX};

use crate::house::{GRACE, House, attached, boot, cut, frame, heard, lives, say, shows, start_ticks, until};
use crate::unread::{deaf, has_read};

const HELLO: u8 = 1;
const WELCOME: u8 = 65;
const REFUSED: u8 = 66;
const OUTPUT: u8 = 67;
const CAUGHT_UP: u8 = 72;
/// Words of 16 bytes, for as long as the connection is cut again and again.
const WORDS: u32 = 200_000;
const CUTS: u32 = 12;

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_costs_no_byte_and_is_no_takeover() {
    let house = House::new();
    let script = format!(
        "stty -opost -echo; i=0; while [ $i -lt {WORDS} ]; do printf '%015d ' $i; i=$((i+1)); done; \
         read x; echo \"got:$x:\"; read x"
    );
    let terminal = house.shell("cut", &script).await;
    let holder = house.holder("cut");
    let mut end = terminal.changed();
    for round in 1..=CUTS {
        let at = u64::from(round) * u64::from(WORDS) * 16 / u64::from(CUTS + 1);
        let arrives = tokio::time::timeout(crate::house::LIMIT, end.wait_for(|end| *end >= at));
        assert!(arrives.await.is_ok(), "nothing more comes in round {round}");
        until("there is a connection to cut", || cut(holder)).await;
    }
    let wanted = u64::from(WORDS) * 16;
    let whole = tokio::time::timeout(crate::house::LIMIT, end.wait_for(|end| *end >= wanted));
    assert!(
        whole.await.is_ok(),
        "only {} of {wanted}",
        *terminal.changed().borrow()
    );
    let output = terminal.output_since(0);
    assert_eq!((output.from, output.end), (0, wanted));
    for (number, word) in output.bytes.chunks(16).enumerate() {
        assert_eq!(word, format!("{number:015} ").as_bytes());
    }
    assert!(!*terminal.displaced().borrow() && !*terminal.lost().borrow());
    terminal.write("mine\r").await.unwrap();
    shows(&terminal, "got:mine:").await;
    assert!(lives(terminal.pid()));
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("cut"));
}

#[tokio::test]
async fn a_program_that_ends_while_the_connection_is_broken_is_told_with_all_its_output() {
    let house = House::new();
    let go = house.file("go");
    let script = format!(
        "echo ready; while [ ! -e {} ]; do sleep 0.01; done; seq 1 20000; echo bye; exit 7",
        go.display()
    );
    let terminal = house.shell("ends", &script).await;
    shows(&terminal, "ready").await;
    std::fs::write(&go, "").unwrap();
    assert!(cut(house.holder("ends")));
    assert_eq!(crate::house::exit(&terminal).await.code, Some(7));
    assert!(terminal.screen().rows.iter().any(|row| row == "bye"));
    assert!(!*terminal.lost().borrow(), "its holder lives");
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn input_whose_answer_is_lost_with_the_connection_may_be_typed_and_is_never_typed_twice() {
    let house = House::new();
    let terminal = house.shell("unheard", &deaf(&house)).await;
    shows(&terminal, "ready").await;
    let holder = house.holder("unheard");
    let before = written(holder);
    let filler = vec![b'f'; WRITE_BYTES_MAX];
    let (first, second, ()) = tokio::join!(
        terminal.write(filler.clone()),
        async {
            tokio::task::yield_now().await;
            terminal.write("then ").await
        },
        async {
            until("the program has a part of it", || {
                written(holder) > before + 1_000
            })
            .await;
            assert!(cut(holder));
        }
    );
    let first = first.unwrap_err();
    assert!(matches!(first, TerminalError::Unheard { .. }), "{first}");
    std::fs::write(house.file("go"), "").unwrap();
    terminal.write("this").await.unwrap();
    let then = match second {
        // It had not been said yet when the connection broke.
        Ok(_) => b"then ".to_vec(),
        Err(TerminalError::Unheard { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    has_read(&house, &[filler, then, b"this".to_vec()].concat()).await;
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

/// Bytes that a process has written in all, into whatever.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}

/// A holder made by hand: this process, which says what it likes on each connection.
struct ByHand {
    listener: UnixListener,
}

impl ByHand {
    fn new(house: &House) -> ByHand {
        let record = json!({
            "protocol": 2, "version": "1", "boot": boot(), "tag": "odd", "holder": { "holder": own() },
            "root": own(), "ended": null,
        });
        house.write_record("odd", &record);
        let listener = UnixListener::bind(house.dir().join("odd/socket")).unwrap();
        ByHand { listener }
    }

    /// The next core that comes, with its greeting.
    fn greeted(&self) -> (UnixStream, Value) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(crate::house::LIMIT)).unwrap();
        let (kind, hello) = heard(&mut stream);
        assert_eq!(kind, HELLO);
        (stream, serde_json::from_slice(&hello).unwrap())
    }

    /// The next one is welcomed and told `words` at `offset`.
    fn tells(&self, from: u64, offset: u64, words: &str) -> UnixStream {
        let (mut stream, hello) = self.greeted();
        assert_eq!((&hello["from"], &hello["epoch"]), (&json!(from), &json!(5)));
        let welcome = json!({
            "protocol": 2, "version": "1", "holder": own(), "root": own(), "size": { "cols": 80, "rows": 24 },
            "start": from, "end": from, "exited": false,
        });
        say(&mut stream, &frame(WELCOME, welcome.to_string().as_bytes()));
        let output = [&offset.to_le_bytes()[..], words.as_bytes()].concat();
        say(&mut stream, &frame(OUTPUT, &output));
        say(&mut stream, &frame(CAUGHT_UP, &[]));
        stream
    }

    /// The next one is refused.
    fn refuses(&self, refused: &Value) {
        let (mut stream, _) = self.greeted();
        say(&mut stream, &frame(REFUSED, refused.to_string().as_bytes()));
    }
}

fn own() -> Value {
    let pid = std::process::id();
    json!({ "pid": pid, "start_ticks": start_ticks(pid) })
}

/// Every odd end of a connection, one after the other; the last one is a takeover.
fn odd_ends(holder: &ByHand) {
    let mut half = holder.tells(0, 0, "abc");
    say(&mut half, &[200, 0]);
    drop(half);
    holder.refuses(&json!({ "kind": "taken", "why": "the connection of before", "launch": 5 }));
    let mut nonsense = holder.tells(3, 3, "def");
    say(&mut nonsense, &frame(99, b"?"));
    // A connection that ends without a word, before the greeting was read.
    drop(holder.listener.accept().unwrap());
    holder.refuses(&json!({ "kind": "taken", "why": "a holder of before says no launch" }));
    holder.refuses(&json!({ "kind": "stranger", "why": "who knows" }));
    // What was there already is not taken a second time.
    let again = holder.tells(6, 4, "ef");
    let last = holder.tells(6, 6, "ghi");
    // A later core came, and nobody told us.
    drop((nonsense, again, last));
    holder.refuses(&json!({ "kind": "taken", "why": "another core holds it", "launch": 6 }));
}

#[tokio::test]
async fn whatever_ends_a_connection_only_a_later_launch_takes_the_terminal_away() {
    let house = House::new();
    let holder = ByHand::new(&house);
    let odd = tokio::task::spawn_blocking(move || odd_ends(&holder));
    let terminal: Terminal = attached(house.launch(5).attach("odd").await);
    let mut displaced = terminal.displaced();
    let taken = tokio::time::timeout(crate::house::LIMIT, displaced.wait_for(|displaced| *displaced));
    assert!(taken.await.is_ok(), "by the later launch, in the end");
    odd.await.unwrap();
    let output = terminal.output_since(0);
    assert_eq!((output.from, &output.bytes[..]), (0, &b"abcdefghi"[..]));
    assert!(terminal.exited().borrow().is_none() && !*terminal.lost().borrow());
}

//! From the call of `enqueue_command` until every client of the office has heard the doorbell; and until one has heard
//! it while all others sit in other offices.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use uuid::Uuid;

use crate::member::Member;
use crate::process::Process;
use crate::table::{Times, head, line, ms};

/// Offices that the clients of others are spread over: as many as one account may own beside the first.
const OTHER_OFFICES: usize = 19;
/// Connections that are being opened at the same time.
const OPENING_MAX: usize = 32;
/// What a client keeps for reading.
const READ_BUFFER_BYTES: usize = 1024;
/// Longest a client may wait for what must come.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long the hub is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

type Wire = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Commands that are measured at so many listeners.
fn commands(listeners: usize) -> usize {
    match listeners {
        0..=100 => 300,
        101..=1000 => 100,
        _ => 40,
    }
}

/// What all clients have heard of the command that is on its way.
#[derive(Default)]
struct Heard {
    times: RefCell<Vec<Instant>>,
    expected: Cell<usize>,
    all: Notify,
}

impl Heard {
    fn hear(&self) {
        let now = Instant::now();
        let mut times = self.times.borrow_mut();
        times.push(now);
        if times.len() == self.expected.get() {
            self.all.notify_one();
        }
    }
}

/// Clients that are connected; dropping it hangs up.
struct Listeners(Vec<JoinHandle<()>>);

impl Drop for Listeners {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

pub async fn run(counts: &[usize]) {
    println!("\nenqueue_command → doorbell heard, ms\n");
    head(&[
        "clients of the office",
        "of others",
        "call answered p50",
        "heard p50",
        "p95",
        "p99",
        "the last one heard, p50",
        "p95",
        "hub at rest, MiB",
        "KiB for each client",
        "joins a second",
    ]);
    for count in counts {
        let hub = Process::start(1);
        let http = reqwest::Client::new();
        let owner = Member::sign_in(&hub, &http, 0).await;
        let office = owner.office("Here").await;
        let hub = hub.restarted();
        let owner = owner.at(&hub);
        in_one_office(&hub, &owner, office, *count).await;
        if *count > 1 {
            in_others(&hub, &owner, office, *count).await;
        }
    }
}

/// All `count` clients are of the office that rings.
async fn in_one_office(hub: &Process, owner: &Member, office: Uuid, count: usize) {
    // What the first client and the first command make the hub keep is not a client's.
    let heard = Rc::new(Heard::default());
    drop(connect(hub, owner, &[office], 1, &heard).await);
    ring(owner, office, &heard, 0, 3).await;
    tokio::time::sleep(SETTLE).await;
    let before = hub.memory_kib();
    let began = Instant::now();
    let listeners = connect(hub, owner, &[office], count, &heard).await;
    let joins = count as f64 / began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let after = hub.memory_kib();
    let each = (after.saturating_sub(before)) as f64 / count as f64;
    let rung = ring(owner, office, &heard, count, commands(count)).await;
    drop(listeners);
    let more = [
        format!("{:.1}", after as f64 / 1024.0),
        if count < 100 {
            "–".to_owned()
        } else {
            format!("{each:.1}")
        },
        if count < 100 {
            "–".to_owned()
        } else {
            format!("{joins:.0}")
        },
    ];
    tell(count, 0, &rung, &more);
}

/// One client is of the office that rings, the others are not.
async fn in_others(hub: &Process, owner: &Member, office: Uuid, count: usize) {
    let mut offices = Vec::new();
    for number in 0..OTHER_OFFICES.min(count) {
        offices.push(owner.office(&format!("Other {number}")).await);
    }
    let (heard, deaf) = (Rc::new(Heard::default()), Rc::new(Heard::default()));
    let _others = connect(hub, owner, &offices, count, &deaf).await;
    let _one = connect(hub, owner, &[office], 1, &heard).await;
    let rung = ring(owner, office, &heard, 1, commands(1)).await;
    assert_eq!(
        deaf.times.borrow().len(),
        0,
        "somebody of another office heard it"
    );
    tell(1, count, &rung, &["–".to_owned(), "–".to_owned(), "–".to_owned()]);
}

struct Rung {
    called: Times,
    heard: Times,
    last: Times,
}

fn tell(here: usize, elsewhere: usize, rung: &Rung, more: &[String]) {
    let mut cells = vec![here.to_string(), elsewhere.to_string(), ms(rung.called.at(0.5))];
    cells.extend([0.5, 0.95, 0.99].map(|share| ms(rung.heard.at(share))));
    cells.extend([0.5, 0.95].map(|share| ms(rung.last.at(share))));
    cells.extend_from_slice(more);
    line(&cells);
}

/// Rings so many times, each time until all have heard.
async fn ring(owner: &Member, office: Uuid, heard: &Heard, listeners: usize, times: usize) -> Rung {
    let mut rung = Rung {
        called: Times::default(),
        heard: Times::default(),
        last: Times::default(),
    };
    for _ in 0..times {
        heard.times.borrow_mut().clear();
        heard.expected.set(listeners);
        let arguments = json!({"p_office": office, "p_kind": "send_prompt", "p_args": {"prompt": "Say hello."},
                               "p_key": Uuid::new_v4()});
        let began = Instant::now();
        owner.call("enqueue_command", &arguments).await;
        rung.called.push(began.elapsed());
        if listeners == 0 {
            continue;
        }
        timeout(WAIT_MAX, heard.all.notified())
            .await
            .expect("all clients hear the doorbell");
        let moments = heard.times.borrow();
        for at in moments.iter() {
            rung.heard.push(at.duration_since(began));
        }
        if let Some(last) = moments.iter().max() {
            rung.last.push(last.duration_since(began));
        }
    }
    rung
}

/// Connects and joins `count` clients, in turns to each of `offices`.
async fn connect(
    hub: &Process,
    who: &Member,
    offices: &[Uuid],
    count: usize,
    heard: &Rc<Heard>,
) -> Listeners {
    let address = format!(
        "{}/realtime/v1/websocket?apikey={}&vsn=2.0.0",
        hub.url.replace("http://", "ws://"),
        hub.key
    );
    let opening = Rc::new(Semaphore::new(OPENING_MAX));
    let (ready, mut joined) = tokio::sync::mpsc::unbounded_channel();
    let mut listeners = Listeners(Vec::with_capacity(count));
    for number in 0..count {
        let topic = format!("realtime:office:{}:commands", offices[number % offices.len()]);
        let (address, token, heard) = (address.clone(), who.token.clone(), heard.clone());
        let (opening, ready) = (opening.clone(), ready.clone());
        listeners.0.push(tokio::task::spawn_local(async move {
            let place = opening.acquire().await.unwrap();
            let (sink, stream) = join(&address, &topic, &token).await;
            drop(place);
            ready.send(()).unwrap();
            listen(sink, stream, &heard).await;
        }));
    }
    for _ in 0..count {
        timeout(WAIT_MAX, joined.recv()).await.expect("all clients join");
    }
    listeners
}

async fn join(address: &str, topic: &str, token: &str) -> (SplitSink<Wire, Message>, SplitStream<Wire>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    let (wire, _) = connect_async_with_config(address, Some(config), true)
        .await
        .expect("the hub lets a client in");
    let (mut sink, mut stream) = wire.split();
    let config = json!({"private": true, "broadcast": {"self": false, "ack": false}});
    let join = json!(["1", "1", topic, "phx_join", {"config": config, "access_token": token}]);
    sink.send(Message::Text(join.to_string().into())).await.unwrap();
    let reply = timeout(WAIT_MAX, stream.next()).await.expect("an answer in time");
    let Some(Ok(Message::Text(text))) = reply else {
        panic!("{reply:?}");
    };
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reply[4]["status"], "ok", "{text}");
    (sink, stream)
}

/// Counts the doorbells; whatever else comes is none.
async fn listen(_sink: SplitSink<Wire, Message>, mut stream: SplitStream<Wire>, heard: &Heard) {
    const BROADCAST: u8 = 4;
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(frame) if frame.first() == Some(&BROADCAST) => heard.hear(),
            Message::Text(_) => {}
            other => panic!("a client heard {other:?}"),
        }
    }
}

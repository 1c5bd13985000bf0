//! The bad network itself: what a story orders is what happens. Otherwise the stories of [`super::network`] would prove
//! nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::proxy::{Act, FaultProxy, Weather};
use harness::wait::{LONG, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BODY: &str = "{\"answer\":1}";

/// An office that answers every request with the same, and remembers the request lines.
struct Office {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Office {
    async fn start() -> Office {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let (log, end, tasks) = (asked.clone(), stop.clone(), TaskTracker::new());
        tasks.clone().spawn(async move {
            while let Some(Ok((stream, _))) = end.run_until_cancelled(listener.accept()).await {
                tasks.spawn(serve(stream, log.clone()));
            }
        });
        Office { url, asked, stop }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("log").len()
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head).into_owned();
            log.lock()
                .expect("log")
                .push(text.lines().next().unwrap_or_default().to_owned());
            head.clear();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A connection through the proxy.
async fn open(proxy: &FaultProxy) -> TcpStream {
    let address = proxy.url().trim_start_matches("http://").to_owned();
    TcpStream::connect(address).await.expect("a connection")
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
}

/// Everything up to the end of the connection, or the whole answer.
async fn answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let all = async {
        while !String::from_utf8_lossy(&read).ends_with(BODY) {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(LONG, all)
        .await
        .expect("an answer or an end in time");
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn requests_meet_the_acts_that_wait_for_them_and_no_others() {
    let office = Office::start().await;
    let proxy = FaultProxy::start(&office.url).await;
    let acts = [
        (Act::Twice, 2, true),
        (Act::CutRequest, 0, false),
        (Act::CutAnswer(5), 1, false),
        (Act::Delay(Duration::from_millis(10)), 1, true),
        (Act::captive_portal(), 0, false),
    ];
    for (act, reaches, is_answered) in acts {
        let before = office.asked();
        proxy.trap("/trapped", 1, act.clone());
        let mut stream = open(&proxy).await;
        ask(&mut stream, "/other").await;
        assert!(
            answer(&mut stream).await.ends_with(BODY),
            "{act:?} waits for another"
        );
        ask(&mut stream, "/trapped").await;
        if let Act::Answer { .. } = act {
            // The page ends otherwise than the office's answer; the connection stays open.
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.expect("a page");
            assert_eq!(&start, b"HTTP/1.1 200");
        } else {
            let said = answer(&mut stream).await;
            assert_eq!(said.ends_with(BODY), is_answered, "{act:?}: {said}");
            if act == Act::CutAnswer(5) {
                assert_eq!(said, "HTTP/");
            }
        }
        assert_eq!(office.asked() - before, 1 + reaches, "{act:?}");
    }
    assert_eq!(proxy.counts().trapped, 5);
    proxy.stop().await;
}

#[tokio::test]
async fn a_hole_swallows_nothing_for_good_and_a_stranded_connection_does() {
    let office = Office::start().await;
    let proxy = FaultProxy::start(&office.url).await;
    let mut stream = open(&proxy).await;
    ask(&mut stream, "/one").await;
    answer(&mut stream).await;

    proxy.weather(Weather::deaf());
    ask(&mut stream, "/two").await;
    wait_until("the office hears it", LONG, || async { office.asked() == 2 }).await;
    let mut byte = [0];
    let nothing = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
    assert!(nothing.is_err(), "neither a byte nor an end: {nothing:?}");
    proxy.weather(Weather::clear());
    assert!(answer(&mut stream).await.ends_with(BODY));

    proxy.strand();
    ask(&mut stream, "/three").await;
    let mut other = open(&proxy).await;
    ask(&mut other, "/four").await;
    assert!(answer(&mut other).await.ends_with(BODY), "a new connection works");
    assert_eq!(office.asked(), 3, "the old one is forgotten");
    proxy.cut();
    assert_eq!(answer(&mut other).await, "", "cut");

    proxy.weather(Weather::refusing());
    let mut refused = open(&proxy).await;
    ask(&mut refused, "/five").await;
    assert_eq!(answer(&mut refused).await, "");
    assert_eq!((proxy.counts().refused, office.asked()), (1, 3));
    proxy.stop().await;
}

#[tokio::test]
async fn held_requests_go_on_when_they_are_released_and_changed_places_when_another_was_answered() {
    let office = Office::start().await;
    let proxy = FaultProxy::start(&office.url).await;
    proxy.trap("/held", 1, Act::Hold);
    proxy.trap("/late", 1, Act::AfterNext(LONG));
    let (mut held, mut late) = (open(&proxy).await, open(&proxy).await);
    ask(&mut held, "/held").await;
    ask(&mut late, "/late").await;
    wait_until("both wait", LONG, || async { proxy.counts().trapped == 2 }).await;
    let mut other = open(&proxy).await;
    ask(&mut other, "/other").await;
    answer(&mut other).await;
    assert!(answer(&mut late).await.ends_with(BODY));
    assert_eq!(office.asked(), 2);
    proxy.release();
    assert!(answer(&mut held).await.ends_with(BODY));
    let lines = office.asked.lock().expect("log").clone();
    let paths: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(paths, ["/other", "/late", "/held"]);
    proxy.stop().await;
}

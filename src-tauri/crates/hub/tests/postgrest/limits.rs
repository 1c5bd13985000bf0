//! What one caller may ask for: bytes of a question, bytes of an answer, statements at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::support::{DEADLINE, Person, TestHub, on_hub, on_own_hub, waiting, waits};
use crate::table::{ask, ready, send};

const MIB: usize = 1024 * 1024;

/// Sends a head that announces a body, and so much of the body; what is answered until the connection is closed.
async fn announced(hub: &TestHub, head: &str, bytes: usize, sent: usize) -> String {
    let address = hub.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nhost: {address}\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
        .write_all(&vec![b' '; sent])
        .await
        .expect("what is sent is taken");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
    read.await.expect("it is answered, and closed").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The next answer, when it ends with `end`.
async fn heard(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(DEADLINE, stream.read_u8()).await;
        answer.push(byte.expect("it is answered").expect("the whole answer"));
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn who_is_refused_gets_his_answer_although_he_sends_everything_first() {
    on_hub(async |hub| {
        ready(&hub).await;
        let token = hub.token(json!({"role": "authenticated", "exp": hub.now_s() - 3600}));
        let refused = "POST /rest/v1/rpc/pt_whole HTTP/1.1\r\nconnection: close";
        for head in [
            refused.to_owned(),
            format!(
                "{refused}\r\napikey: {}\r\nauthorization: Bearer {token}",
                hub.publishable
            ),
        ] {
            // More than the buffers on the way take.
            for bytes in [20_000, 15 * MIB] {
                let answer = announced(&hub, &head, bytes, bytes).await;
                assert!(answer.starts_with("HTTP/1.1 401"), "{head}: {answer}");
            }
        }
        // The connection is as good as before: nothing is left in it.
        let address = hub.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /health HTTP/1.1\r\nhost: {address}\r\ncontent-length: {MIB}\r\n\r\n");
        for _ in 0..3 {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b' '; MIB]).await.unwrap();
            // It has no body.
            let answer = heard(&mut stream, "\r\n\r\n").await;
            assert!(
                answer.starts_with("HTTP/1.1 405") && answer.contains("content-length: 0"),
                "{answer}"
            );
        }
    });
}

#[test]
fn a_body_of_somebody_who_is_refused_anyway_is_not_waited_for() {
    on_hub(async |hub| {
        ready(&hub).await;
        let key = format!("apikey: {}", hub.publishable);
        let token = hub.token(json!({"role": "authenticated", "exp": hub.now_s() - 3600}));
        let cases = [
            ("POST /rest/v1/rpc/pt_whole HTTP/1.1".to_owned(), 401),
            (
                "POST /rest/v1/rpc/pt_whole HTTP/1.1\r\napikey: sb_secret_no".to_owned(),
                401,
            ),
            (
                format!("POST /rest/v1/rpc/pt_whole HTTP/1.1\r\n{key}\r\nauthorization: Bearer {token}"),
                401,
            ),
            ("POST /auth/v1/token?grant_type=password HTTP/1.1".to_owned(), 401),
            ("POST /realtime/v1/api/broadcast HTTP/1.1".to_owned(), 401),
            (format!("POST /health HTTP/1.1\r\n{key}"), 405),
        ];
        // Who would be asked for it is told at once; of the others something may be on its way.
        for how in ["\r\nexpect: 100-continue", ""] {
            let answers = cases.iter().map(async |(head, status)| {
                let answer = announced(&hub, &format!("{head}{how}"), 9 * MIB, 0).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{head}: {answer}"
                );
                assert!(answer.contains("connection: close"), "{head}: {answer}");
            });
            futures_util::future::join_all(answers).await;
        }
    });
}

#[test]
fn who_is_not_signed_in_may_send_less() {
    on_hub(async |hub| {
        ready(&hub).await;
        let member = hub.person().await;
        let long = |bytes: usize| json!("x".repeat(bytes));
        let status = async |who: &Person, bytes: usize| {
            let request = hub.request(who, Method::POST, "/rest/v1/rpc/pt_whole");
            send(request.json(&long(bytes))).await.status
        };
        assert_eq!(status(&member, 2 * MIB).await, 200);
        assert_eq!(status(&hub.anon(), MIB / 2).await, 200);
        // The rest is read, so that the answer is.
        for _ in 0..5 {
            assert_eq!(status(&hub.anon(), 9 * MIB).await, 413);
        }
        assert_eq!(status(&member, 11 * MIB).await, 413);
    });
}

#[test]
fn bodies_that_do_not_end_keep_nobody_from_signing_in() {
    on_own_hub(
        |_| {},
        async |hub| {
            ready(&hub).await;
            let address = hub.url.trim_start_matches("http://");
            let head = format!(
                "POST /auth/v1/token?grant_type=password HTTP/1.1\r\nhost: {address}\r\napikey: {}\r\n\
                 content-length: {MIB}\r\n\r\n",
                hub.publishable
            );
            // All but the last byte: more than those who are not signed in may have together.
            let mut open = Vec::new();
            let part = vec![b' '; MIB - 1];
            for _ in 0..33 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                // The last ones are refused while they send.
                let _ = stream.write_all(&part).await;
                open.push(stream);
            }
            let status = async |who: &Person, bytes: usize| {
                let request = hub.request(who, Method::POST, "/rest/v1/rpc/pt_whole");
                send(request.json(&json!("x".repeat(bytes)))).await.status
            };
            let began = Instant::now();
            while status(&hub.anon(), MIB / 2).await != 503 {
                assert!(began.elapsed() < DEADLINE, "there is an end to what is kept");
            }
            // Who is told so gets to know it although he sends everything first.
            let head = format!(
                "POST /rest/v1/rpc/pt_whole HTTP/1.1\r\napikey: {}",
                hub.publishable
            );
            for bytes in [MIB / 2, MIB] {
                let answer = announced(&hub, &head, bytes, bytes).await;
                assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            }
            let sign_in = hub
                .http
                .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
                .header("apikey", &hub.publishable)
                .json(&json!({"email": "nobody@example.com", "password": "a guess of mine"}));
            let answered = send(sign_in).await;
            assert_eq!(answered.status, 400, "it is heard: {}", answered.body);
            assert_eq!(
                status(&hub.person().await, 2 * MIB).await,
                200,
                "members have their own"
            );
            drop(open);
            let began = Instant::now();
            while status(&hub.anon(), MIB / 2).await != 200 {
                assert!(began.elapsed() < DEADLINE, "the room is given back");
            }
        },
    );
}

#[test]
fn an_answer_that_is_too_long_is_an_error_that_says_what_to_do() {
    on_hub(async |hub| {
        ready(&hub).await;
        let long = async |bytes: usize| {
            // A server: its statements may take a minute.
            let call = hub.http.post(format!("{}/rest/v1/rpc/pt_long", hub.url));
            send(call.header("apikey", &hub.secret).json(&json!({"bytes": bytes}))).await
        };
        let good = long(2 * MIB).await;
        assert_eq!(
            (good.status, good.body.as_str().map(str::len)),
            (200, Some(2 * MIB))
        );
        let bad = long(64 * MIB).await;
        assert_eq!(bad.code(), (413, "54000"));
        for word in ["limit", "select", "Range"] {
            assert!(bad.body["hint"].as_str().unwrap().contains(word), "{}", bad.body);
        }
        assert_eq!(bad.body["details"], Value::Null);
        // Of everybody else's there may be more at once.
        let member = hub.person().await;
        let call = async |bytes: usize| {
            let call = hub.request(&member, Method::POST, "/rest/v1/rpc/pt_long");
            send(call.json(&json!({"bytes": bytes}))).await
        };
        assert_eq!(call(15 * MIB).await.status, 200);
        let bad = call(16 * MIB).await;
        assert_eq!(bad.code(), (413, "54000"));
        assert!(
            bad.body["message"].as_str().unwrap().contains("16777216"),
            "{}",
            bad.body
        );
    });
}

/// Asks as a server for a long answer, and reads its head only.
async fn deaf(hub: &TestHub, bytes: usize) -> TcpStream {
    let address = hub.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let question = json!({"bytes": bytes}).to_string();
    let request = format!(
        "POST /rest/v1/rpc/pt_long HTTP/1.1\r\nhost: {address}\r\napikey: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{question}",
        hub.secret,
        question.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[test]
fn answers_that_nobody_reads_do_not_fill_the_memory() {
    on_hub(async |hub| {
        ready(&hub).await;
        let server = async |bytes: usize| {
            let call = hub.http.post(format!("{}/rest/v1/rpc/pt_long", hub.url));
            send(call.header("apikey", &hub.secret).json(&json!({"bytes": bytes}))).await
        };
        let unread = [deaf(&hub, 60 * MIB).await, deaf(&hub, 60 * MIB).await];
        let full = server(20 * MIB).await;
        assert_eq!(full.code(), (503, "53200"));
        assert_eq!(full.header("retry-after"), "1");
        // What is small has its place, and so has whoever else asks.
        assert_eq!(server(1000).await.status, 200);
        let other = hub.request(&hub.person().await, Method::POST, "/rest/v1/rpc/pt_long");
        assert_eq!(send(other.json(&json!({"bytes": MIB}))).await.status, 200);
        drop(unread);
        let began = Instant::now();
        while server(20 * MIB).await.status != 200 {
            assert!(began.elapsed() < DEADLINE, "the room is given back");
        }
    });
}

async fn lock(admin: &Client, lock: i32) {
    admin
        .execute("select pg_advisory_lock($1::int4)", &[&lock])
        .await
        .unwrap();
}

async fn unlock(admin: &Client, lock: i32) {
    admin
        .execute("select pg_advisory_unlock($1::int4)", &[&lock])
        .await
        .unwrap();
}

/// One of `who` asks for more at once than the pool has; others ask meanwhile. None when it took so long that some of it
/// was given up.
async fn all_at_once(hub: &TestHub, who: &Person) -> Option<()> {
    const LOCK: i32 = 7302;
    let (admin, watch) = (hub.admin().await, hub.admin().await);
    lock(&admin, LOCK).await;
    let many = (0..24).map(|_| {
        let request = hub.request(who, Method::POST, "/rest/v1/rpc/pt_wait");
        send(request.json(&json!({"lock": LOCK})))
    });
    let others = async {
        waiting(&watch, LOCK, 4).await;
        for who in [&hub.person().await, &hub.anon()] {
            let request = hub.request(who, Method::POST, "/rest/v1/rpc/pt_add");
            let answered = send(request.json(&json!({"a": 1}))).await;
            assert_eq!((answered.status, answered.body), (200, json!(2)));
        }
        let still = waits(&watch, LOCK).await;
        unlock(&admin, LOCK).await;
        still
    };
    let (many, still) = tokio::join!(futures_util::future::join_all(many), others);
    for answered in &many {
        match answered.code() {
            (200, _) => {}
            // Longest statement, and longest wait for a turn.
            (_, "57014" | "PGRST003") => return None,
            _ => panic!("{} {}", answered.status, answered.body),
        }
    }
    assert_eq!(still, 4, "nobody's turn was over");
    Some(())
}

#[test]
fn who_asks_for_much_at_once_keeps_only_himself_waiting() {
    on_hub(async |hub| {
        ready(&hub).await;
        let greedy = hub.person().await;
        let began = Instant::now();
        while all_at_once(&hub, &greedy).await.is_none() {
            assert!(began.elapsed() < 3 * DEADLINE, "all come to their turn");
        }
    });
}

#[test]
fn who_hangs_up_leaves_no_statement_running() {
    const LOCK: i32 = 7303;
    on_hub(async |hub| {
        ready(&hub).await;
        let (admin, watch) = (hub.admin().await, hub.admin().await);
        lock(&admin, LOCK).await;
        // Whose statements may take a minute.
        let server = hub
            .http
            .post(format!("{}/rest/v1/rpc/pt_wait", hub.url))
            .header("apikey", &hub.secret)
            .json(&json!({"lock": LOCK}));
        let began = Instant::now();
        tokio::select! {
            answered = send(server) => panic!("the lock is held: {}", answered.body),
            () = waiting(&watch, LOCK, 1) => {}
        }
        waiting(&watch, LOCK, 0).await;
        assert!(began.elapsed() < DEADLINE);
        unlock(&admin, LOCK).await;
        // Its connection is as good as any: each of the pool's answers.
        for _ in 0..20 {
            let answered = send(ask(&hub, Method::POST, "rpc/pt_add").json(&json!({"a": 1}))).await;
            assert_eq!(answered.status, 200, "{}", answered.body);
        }
    });
}

/// Asks for naps and hangs up in the midst of each.
async fn hang_up(hub: &TestHub, who: &Person) {
    // Some end by themselves at once, some just when they are to be stopped, and one is stopped. The longer waits are for
    // machines on which the shorter ones end before anything has begun.
    let naps_ms = [20, 25, 200, 40, 215, 20, 220, 30, 1000, 210];
    let waits_ms = [15, 15, 15, 50, 150];
    for (nap_ms, wait_ms) in naps_ms.into_iter().cycle().zip(waits_ms.into_iter().cycle()) {
        let nap = hub.request(who, Method::POST, "/rest/v1/rpc/pt_nap");
        let nap = send(nap.json(&json!({"ms": nap_ms})));
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), nap).await;
    }
}

/// Waits until so many connections of those who ask have been there.
async fn connections(admin: &Client, wanted: usize) {
    const SQL: &str = "select pid from pg_stat_activity where usename = 'authenticator'";
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    while seen.len() < wanted {
        let found = seen.len();
        assert!(began.elapsed() < DEADLINE, "{found} connections, not {wanted}");
        let rows = admin.query(SQL, &[]).await.unwrap();
        seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn who_hangs_up_ends_no_statement_of_somebody_else() {
    on_own_hub(
        |_| {},
        async |hub| {
            ready(&hub).await;
            let admin = hub.admin().await;
            // With those who hang up they want more connections than there are: each that is given back is taken at once.
            let (mut others, mut rude) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                others.push(hub.person().await);
                rude.push(hub.person().await);
            }
            let asking = others.iter().flat_map(|who| [who; 4]).map(async |who| {
                loop {
                    let nap = hub.request(who, Method::POST, "/rest/v1/rpc/pt_nap");
                    let answered = send(nap.json(&json!({"ms": 8}))).await;
                    // A slow machine may have no connection for him in time.
                    if answered.code().1 != "PGRST003" {
                        assert_eq!((answered.status, &answered.body), (200, &json!(1)));
                    }
                }
            });
            let hanging_up = rude.iter().flat_map(|who| [who; 3]);
            let hanging_up = hanging_up.map(async |who| hang_up(&hub, who).await);
            tokio::select! {
                () = async { futures_util::future::join_all(asking).await; } => {}
                () = async { futures_util::future::join_all(hanging_up).await; } => {}
                // The pools have twenty together; each further one took the place of one on which a statement was stopped.
                () = connections(&admin, 40) => {}
            }
        },
    );
}

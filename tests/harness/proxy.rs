//! A bad network between a client and its office: a TCP proxy that cuts, delays, doubles, reorders, swallows and
//! answers in the office's place, as a story tells it while it runs.
//!
//! Two ways to disturb: the [`Weather`] touches bytes of every connection, those that are open and those to come; a
//! [`Trap`] waits for HTTP requests whose line holds a text and does something to them as a whole. Doorbells (frames of
//! the upgraded socket) have a switch of their own, [`Bells`]. Bytes are never changed, only late, lost or twice.
//!
//! Give the client [`FaultProxy::url`] as the address of the office.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod connection;
mod http;
mod pour;

/// Requests that are remembered; older ones are only counted.
const SEEN_MAX: usize = 20_000;

/// What bytes of one direction meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lane {
    /// Nothing gets through and nobody is told: no error, no end. What waits goes on when it is lifted.
    pub hole: bool,
    /// Each piece comes this much later.
    pub delay: Duration,
    /// Largest piece in bytes; 0: as they come.
    pub piece: usize,
}

/// What all connections meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// New connections are closed at once.
    pub refuse: bool,
    /// Client to office.
    pub up: Lane,
    /// Office to client.
    pub down: Lane,
}

impl Weather {
    /// Everything gets through.
    pub fn clear() -> Weather {
        Weather::default()
    }

    /// Nobody is let in; what is open stays open.
    pub fn refusing() -> Weather {
        Weather {
            refuse: true,
            ..Weather::default()
        }
    }

    /// Nothing gets through in either direction, and nobody is told.
    pub fn half_open() -> Weather {
        Weather {
            up: Lane {
                hole: true,
                ..Lane::default()
            },
            down: Lane {
                hole: true,
                ..Lane::default()
            },
            ..Weather::default()
        }
    }

    /// The office hears everything, the client nothing.
    pub fn deaf() -> Weather {
        Weather {
            down: Lane {
                hole: true,
                ..Lane::default()
            },
            ..Weather::default()
        }
    }

    /// The client hears everything, the office nothing.
    pub fn mute() -> Weather {
        Weather {
            up: Lane {
                hole: true,
                ..Lane::default()
            },
            ..Weather::default()
        }
    }

    /// One byte at a time, both ways.
    pub fn crumbs() -> Weather {
        Weather {
            up: Lane {
                piece: 1,
                ..Lane::default()
            },
            down: Lane {
                piece: 1,
                ..Lane::default()
            },
            ..Weather::default()
        }
    }

    /// Each piece this much later, both ways.
    pub fn slow(delay: Duration) -> Weather {
        Weather {
            up: Lane {
                delay,
                ..Lane::default()
            },
            down: Lane {
                delay,
                ..Lane::default()
            },
            ..Weather::default()
        }
    }
}

/// What is done to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The connection is cut; the office never sees the request.
    CutRequest,
    /// The office carries it out; of its answer this many bytes come back, then the connection is cut.
    CutAnswer(usize),
    /// The office gets it twice, one after the other, each on a connection of its own; the client gets the second answer.
    Twice,
    /// The request waits this long before it goes on.
    Delay(Duration),
    /// The request waits until any other one has been answered, at most this long: the two change places.
    AfterNext(Duration),
    /// The request goes on when [`FaultProxy::release`] is called.
    Hold,
    /// Something in between answers: status, content type, more headers, body. The office never sees the request.
    Answer {
        /// HTTP status.
        status: u16,
        /// `text/html`, `application/json` …
        content_type: &'static str,
        /// More header lines, `name: value`.
        headers: Vec<String>,
        /// The body.
        body: String,
    },
}

impl Act {
    /// The sign-in page of a hotel, in place of what was asked for.
    pub fn captive_portal() -> Act {
        Act::Answer {
            status: 200,
            content_type: "text/html",
            headers: Vec::new(),
            body: "<!DOCTYPE html><html><title>Welcome</title><body>Please accept our terms.</body></html>"
                .to_owned(),
        }
    }

    /// A status with an empty JSON object.
    pub fn status(status: u16) -> Act {
        Act::Answer {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body: "{}".to_owned(),
        }
    }

    /// A status that asks to be left alone for so many seconds.
    pub fn later(status: u16, seconds: u32) -> Act {
        Act::Answer {
            status,
            content_type: "application/json",
            headers: vec![format!("Retry-After: {seconds}")],
            body: "{}".to_owned(),
        }
    }
}

/// Waits for requests and does something to them.
#[derive(Debug, Clone)]
struct Trap {
    /// Part of the request line: `rpc/complete_command`, `realtime/v1/websocket`, ` /`.
    part: String,
    act: Act,
    /// How many requests it is still for.
    left: u32,
}

/// What happens to doorbells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bells {
    /// They get through.
    #[default]
    Ring,
    /// They are lost; everything else of the socket gets through.
    Lost,
    /// Each comes twice.
    Twice,
}

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Method and path with query, as sent.
    pub line: String,
    /// The status that went back; `None`: none (yet).
    pub status: Option<u16>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that were let in.
    pub connections: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Open ones.
    pub open: u64,
    /// Requests that reached the proxy.
    pub requests: u64,
    /// Requests that met a trap.
    pub trapped: u64,
    /// Sockets that were upgraded.
    pub upgrades: u64,
    /// Doorbells that got through.
    pub bells_rung: u64,
    /// Doorbells that were lost.
    pub bells_lost: u64,
}

/// What connections look at all the time.
#[derive(Debug, Clone, Copy, Default)]
struct Scene {
    weather: Weather,
    bells: Bells,
    /// Connections up to this number are stranded.
    stranded: u64,
    /// Connections up to this number are cut.
    cut: u64,
    /// How often held requests were released.
    released: u64,
}

#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    counts: Counts,
    traps: Vec<Trap>,
}

struct Shared {
    target: Mutex<String>,
    scene: watch::Sender<Scene>,
    log: Mutex<Log>,
    born: AtomicU64,
    /// Counts answers, for [`Act::AfterNext`].
    answered: watch::Sender<u64>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> String {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The proxy. Ends with [`FaultProxy::stop`]; dropped, its connections are cut.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl FaultProxy {
    /// Listens on a free port of loopback and passes everything on to `target` (`http://127.0.0.1:54321`).
    pub async fn start(target: &str) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            target: Mutex::new(address_of(target)),
            scene: watch::Sender::new(Scene::default()),
            log: Mutex::default(),
            born: AtomicU64::new(0),
            answered: watch::Sender::new(0),
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(accept(listener, shared.clone(), tasks.clone(), stop.clone()));
        FaultProxy {
            url,
            shared,
            tasks,
            stop,
        }
    }

    /// The address to give to the client.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where new connections go from now on.
    pub fn retarget(&self, target: &str) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = address_of(target);
    }

    /// What all connections meet from now on, those that are open included.
    pub fn weather(&self, weather: Weather) {
        self.shared.scene.send_modify(|scene| scene.weather = weather);
    }

    /// What happens to doorbells from now on.
    pub fn bells(&self, bells: Bells) {
        self.shared.scene.send_modify(|scene| scene.bells = bells);
    }

    /// Cuts every open connection.
    pub fn cut(&self) {
        let now = self.shared.born.load(Ordering::SeqCst);
        self.shared.scene.send_modify(|scene| scene.cut = now);
    }

    /// Makes every open connection half-open for ever, as a router does that forgot them: nothing gets through, nobody
    /// is told. New ones work.
    pub fn strand(&self) {
        let now = self.shared.born.load(Ordering::SeqCst);
        self.shared.scene.send_modify(|scene| scene.stranded = now);
    }

    /// The next `times` requests whose line holds `part` meet `act`. Of several traps the one that was set first
    /// counts.
    pub fn trap(&self, part: &str, times: u32, act: Act) {
        let part = part.to_owned();
        self.shared.log().traps.push(Trap {
            part,
            act,
            left: times,
        });
    }

    /// No request meets a trap any more; those that are held go on.
    pub fn disarm(&self) {
        self.shared.log().traps.clear();
        self.release();
    }

    /// Requests that are held go on.
    pub fn release(&self) {
        self.shared.scene.send_modify(|scene| scene.released += 1);
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.log().counts
    }

    /// The requests whose line holds `part`, oldest first.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let log = self.shared.log();
        log.seen
            .iter()
            .filter(|seen| seen.line.contains(part))
            .cloned()
            .collect()
    }

    /// Ends it; every connection is cut.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn address_of(target: &str) -> String {
    target
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) {
    while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
        let (shared, stop) = (shared.clone(), stop.clone());
        if shared.scene.borrow().weather.refuse {
            shared.log().counts.refused += 1;
            drop(client);
            continue;
        }
        tasks.spawn(async move {
            {
                let mut log = shared.log();
                log.counts.connections += 1;
                log.counts.open += 1;
            }
            stop.run_until_cancelled(serve(client, &shared)).await;
            shared.log().counts.open -= 1;
        });
    }
}

async fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let born = shared.born.fetch_add(1, Ordering::SeqCst) + 1;
    let mut scene = shared.scene.subscribe();
    let cut = async {
        // The sender lives as long as the proxy.
        let _ = scene.wait_for(|scene| scene.cut >= born).await;
    };
    tokio::select! {
        biased;
        () = cut => {}
        () = connection::run(client, shared, born) => {}
    }
}

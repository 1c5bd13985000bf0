//! Bodies of requests: who may send how much, and how much of them all is in memory at once.
//!
//! The key and the token are looked at first: a body of somebody who will be refused anyway is not kept, unless it is
//! small. What is read counts until the request is answered; who would make it more than [`ALL_BYTES_MAX`] in all, or
//! more than his share, is told to come again. Never keeps anybody waiting. Called by [`crate::http`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, Query, Request};
use axum::http::header;
use futures_util::StreamExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::budget::{Budget, Charge};
use crate::http::Shared;
use crate::identity;
use crate::jwt::Subject;
use crate::metrics::Protocol;

/// Largest body of somebody who is signed in, or has the secret key, in bytes.
pub(crate) const SIGNED_IN_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Largest body of somebody who has only the publishable key.
const KEY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body that is not counted: so much may come on every connection, whoever else fills the memory. It is also
/// the largest that is kept of somebody who is refused.
const SMALL_BYTES_MAX: usize = 16 * 1024;
/// How much of a body that is too large, or of no use, is read and thrown away, so that its sender gets to the answer:
/// many read that only after their question, and a connection that ends before drops it.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest pause in a body of no use, and longest that all of it may take to come.
const DISCARDED_PAUSE_MAX: Duration = Duration::from_secs(2);
const DISCARDED_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of bodies in memory, of all together.
const ALL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Of these of one account; those who are not signed in are one account together.
const ACCOUNT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What all bodies may have.
pub(crate) fn budget() -> Arc<Budget> {
    Budget::new(ALL_BYTES_MAX, ACCOUNT_BYTES_MAX)
}

/// One request's body.
#[derive(Debug)]
pub(crate) struct Weight {
    charge: Charge,
    refused: AtomicBool,
}

impl Weight {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.charge.take(bytes);
        if !taken {
            self.refused.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Whether there was no room for all of it.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What a request with a body is handled with.
pub(crate) struct Admitted {
    pub request: Request,
    /// To be kept until the answer is there. None without a body that counts.
    pub weight: Option<Arc<Weight>>,
    /// The body, when it is of no use: to be thrown away before the answer.
    pub useless: Option<Useless>,
}

/// A body of somebody who is refused.
pub(crate) struct Useless {
    body: Body,
    /// Its sender waits to be asked for it.
    is_held_back: bool,
}

impl Useless {
    /// Reads and throws away what comes. False when there may be more: the connection cannot be used any further.
    pub async fn discard(self) -> bool {
        if self.is_held_back {
            return false;
        }
        let mut parts = self.body.into_data_stream();
        let all = async {
            let mut bytes = 0;
            while bytes < DISCARDED_BYTES_MAX {
                match timeout(DISCARDED_PAUSE_MAX, parts.next()).await {
                    Ok(Some(Ok(part))) => bytes += part.len(),
                    Ok(None) => return true,
                    Ok(Some(Err(_))) | Err(_) => return false,
                }
            }
            false
        };
        timeout(DISCARDED_TIME_MAX, all).await.unwrap_or(false)
    }
}

/// Who sends a body, as far as that matters to it.
enum Sender {
    /// Will be refused by whoever handles the request.
    Refused,
    /// Has a key only. All of these are one account.
    Key,
    SignedIn(Subject),
}

/// Weighs the body of `request`, or takes it away when it is of no use.
pub(crate) fn admit(shared: &Shared, mut request: Request) -> Admitted {
    if request.body().is_end_stream() {
        return Admitted {
            request,
            weight: None,
            useless: None,
        };
    }
    let announced = request.body().size_hint().upper();
    if announced.is_some_and(|bytes| bytes <= SMALL_BYTES_MAX as u64) {
        return Admitted {
            request,
            weight: None,
            useless: None,
        };
    }
    let (most, account) = match sender(shared, &request) {
        Sender::Refused => {
            let useless = Useless {
                is_held_back: request.headers().contains_key(header::EXPECT),
                // Whoever handles it finds nothing and refuses in the words of its protocol.
                body: std::mem::replace(request.body_mut(), Body::empty()),
            };
            return Admitted {
                request,
                weight: None,
                useless: Some(useless),
            };
        }
        Sender::Key => (KEY_BYTES_MAX, Subject::Role("anon".to_owned())),
        Sender::SignedIn(account) => (SIGNED_IN_BYTES_MAX, account),
    };
    DefaultBodyLimit::max(most).apply(&mut request);
    let weight = Arc::new(Weight {
        charge: Charge::new(&shared.bodies, account),
        refused: AtomicBool::new(false),
    });
    let weighed = weight.clone();
    let request = request.map(|inner| {
        Body::new(Weighed {
            inner,
            weight: weighed,
            left: most,
            discarded: 0,
            last: None,
        })
    });
    Admitted {
        request,
        weight: Some(weight),
        useless: None,
    }
}

fn sender(shared: &Shared, request: &Request) -> Sender {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Sender::Refused;
    };
    let has_key = identity::check_key(shared, request.headers(), &pairs).is_ok();
    let who = identity::identify(shared, request.headers(), &pairs);
    match (Protocol::of(request.uri().path()), who) {
        (Protocol::Other, _) => Sender::Refused,
        (_, Ok(claims)) if claims.user().is_none() && claims.role == "anon" => Sender::Key,
        (_, Ok(claims)) => Sender::SignedIn(claims.subject()),
        // To sign in or to refresh, a key is enough, whatever comes with it.
        (Protocol::Auth, Err(_)) if has_key => Sender::Key,
        (_, Err(_)) => Sender::Refused,
    }
}

/// A body that is weighed as it comes. What is more than its sender may send is thrown away but for the part that
/// exceeds it, which comes last: whoever buffers the body sees by it that it was too large. So is what there is no room
/// for, and an error comes last.
struct Weighed {
    inner: Body,
    weight: Arc<Weight>,
    /// Bytes that may still come.
    left: usize,
    discarded: usize,
    last: Option<Result<Frame<Bytes>, axum::Error>>,
}

impl Weighed {
    /// Throws the rest away, then gives what comes last.
    fn discard(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.discarded < DISCARDED_BYTES_MAX {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.discarded += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(self.last.take())
    }
}

impl HttpBody for Weighed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.last.is_some() {
            return self.discard(context);
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes > self.left {
            self.last = Some(Ok(frame));
            return self.discard(context);
        }
        self.left -= bytes;
        if bytes > 0 && !self.weight.take(bytes) {
            self.last = Some(Err(axum::Error::new("there is no room for the body")));
            return self.discard(context);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// How long it takes until a body of no use is given up, or has ended.
    async fn discarded(body: Body, is_held_back: bool) -> (bool, Duration) {
        let began = Instant::now();
        let has_ended = Useless { body, is_held_back }.discard().await;
        (has_ended, began.elapsed())
    }

    fn never() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    /// A byte after each pause.
    fn dribble(pause: Duration) -> Body {
        Body::from_stream(stream::unfold((), move |()| async move {
            sleep(pause).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_no_use_is_not_waited_for_long() {
        assert_eq!(discarded(never(), true).await, (false, Duration::ZERO));
        assert_eq!(discarded(never(), false).await, (false, DISCARDED_PAUSE_MAX));
        let dribble = dribble(DISCARDED_PAUSE_MAX / 2);
        assert_eq!(discarded(dribble, false).await, (false, DISCARDED_TIME_MAX));
        let whole = Body::from(vec![0; DISCARDED_BYTES_MAX - 1]);
        assert_eq!(discarded(whole, false).await, (true, Duration::ZERO));
    }

    #[tokio::test]
    async fn a_body_without_room_is_read_to_its_end_before_that_is_said() {
        let budget = Budget::new(10, 10);
        let account = || Subject::Role("anon".to_owned());
        let weight = Arc::new(Weight {
            charge: Charge::new(&budget, account()),
            refused: AtomicBool::new(false),
        });
        let (read, parts) = (Arc::new(AtomicBool::new(false)), ["12345678", "9", "0123", "4"]);
        let ended = read.clone();
        let parts = stream::iter(parts.map(|part| Ok::<_, Infallible>(Bytes::from(part))));
        let end = stream::once(async move {
            ended.store(true, Ordering::Relaxed);
            Ok(Bytes::new())
        });
        let mut body = Body::new(Weighed {
            inner: Body::from_stream(parts.chain(end)),
            weight: weight.clone(),
            left: 100,
            discarded: 0,
            last: None,
        })
        .into_data_stream();
        for part in ["12345678", "9"] {
            assert_eq!(body.next().await.unwrap().unwrap(), part);
        }
        assert!(!read.load(Ordering::Relaxed));
        assert!(body.next().await.unwrap().is_err());
        assert!(weight.is_refused() && read.load(Ordering::Relaxed));
    }
}

//! Bodies of answers on their way out: in parts, as the reader takes them, and counted until he has taken them all.
//!
//! Called by `routes`.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::error::RestError;
use crate::budget::{Budget, Charge};
use crate::jwt::Subject;

/// Largest body that is not counted, in bytes: as much as a connection has for its buffers anyway.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// What is handed on at a time.
const PART_BYTES: usize = 64 * 1024;
/// Bytes of answers in memory, of all together.
const ALL_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Of these of one account.
const ACCOUNT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What all answers may have.
pub(crate) fn budget() -> Arc<Budget> {
    Budget::new(ALL_BYTES_MAX, ACCOUNT_BYTES_MAX)
}

/// The room that one request's answer takes.
pub(super) struct Room {
    budget: Arc<Budget>,
    account: Subject,
    taken: OnceLock<Charge>,
}

impl Room {
    pub fn new(budget: &Arc<Budget>, account: Subject) -> Room {
        Room {
            budget: budget.clone(),
            account,
            taken: OnceLock::new(),
        }
    }

    /// Takes it, before anything is done that cannot be taken back. Once.
    pub fn take(&self, bytes: usize) -> Result<(), RestError> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(());
        }
        let charge = Charge::new(&self.budget, self.account.clone());
        match charge.take(bytes) && self.taken.set(charge).is_ok() {
            true => Ok(()),
            false => Err(RestError::full()),
        }
    }

    /// The body that it was taken for; gives it back when it has left.
    pub fn body(self, text: String) -> Body {
        match self.taken.into_inner() {
            None => Body::from(text),
            Some(charge) => Body::new(Outgoing {
                rest: Bytes::from(text),
                _charge: charge,
            }),
        }
    }
}

struct Outgoing {
    rest: Bytes,
    _charge: Charge,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(part);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_counts_until_it_has_left_and_comes_out_as_it_went_in() {
        let budget = Budget::new(300_000, 200_000);
        let room = || Room::new(&budget, Subject::Role("mina".to_owned()));
        let text: String = ('a'..='z').cycle().take(150_000).collect();
        let first = room();
        first.take(text.len()).unwrap();
        let first = first.body(text.clone());
        assert_eq!(first.size_hint().exact(), Some(150_000));
        assert_eq!(room().take(text.len()).unwrap_err().code(), "53200");
        room()
            .take(SMALL_BYTES_MAX)
            .expect("what is small is not counted");
        let out = axum::body::to_bytes(first, usize::MAX).await.unwrap();
        assert_eq!(out, text);
        room().take(text.len()).expect("there is room again");
    }
}

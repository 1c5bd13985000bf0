//! Headers and bodies of REST requests.
//!
//! Pure. Called by `routes`.

mod body;
mod csv;
mod media;
mod prefer;
mod range;

pub(super) use self::body::{Payload, Target, payload};
pub(super) use self::media::{Media, accepted, negotiate};
pub(super) use self::prefer::{Count, Of, Prefer, Return};
pub(super) use self::range::{narrowed, status_of_page};

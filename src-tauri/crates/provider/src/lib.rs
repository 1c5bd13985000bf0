//! What we know about agent programs: how one is started, how text gets into it, what it reports, and what its
//! screen means. One module per program, with no trait above them until a second one shows what they share.
//!
//! Invariants: (nearly) pure. It reads an agent's own files and writes the start-up files of a launch, but starts no
//! process, holds no state of a session, and decides nothing about a turn: `session` does, with `domain`'s rules.

pub mod claude;
pub mod detect;
mod error;
pub mod recording;
pub mod screen_turn;
pub mod scripted;
mod version;

pub use error::ProviderError;
pub use version::Version;

//! Git worktrees: one per session, made and removed by the real `git`, with the agent's persona beside the user's
//! files and never over them, and with the whole state kept under `refs/semo/preserved/<session>` before anything
//! is removed.
//!
//! Invariants: changes nothing in the user's own worktree, index or branches; deletes only through
//! `git worktree remove`, after the state is kept; stays inside the folder of worktrees it was given; runs no hook of
//! the repository; every call of git has a time limit. Called by `session` and `client`.

mod catch_up;
mod error;
mod facts;
mod git;
mod inner;
mod lock;
mod persona;
mod preserve;
mod preserved;
mod record;
mod repository;
mod sample;
mod spec;
mod state;
mod unseen;

pub use catch_up::CatchUp;
pub use error::WorktreeError;
pub use facts::{COMMITS_MAX, CommitFact, GitFacts, facts};
pub use inner::NEW_BYTES_MAX;
pub use persona::{PersonaBlock, persona_hash};
pub use preserve::Kept;
pub use preserved::{PRESERVED_LISTED_MAX, Preserved, Restored};
pub use repository::{Repository, Worktree};
pub use sample::sample_repository;
pub use spec::WorktreeSpec;
pub use state::{Changes, FACT_BYTES_MAX, changes, head, tree};

#[cfg(test)]
mod tests;

//! The client: one loop that takes an office's commands, checks them against the local policy, has sessions carry
//! them out, and reports what came of them.
//!
//! Invariants: a command is in the journal before it has any effect; an outcome and its report are written in one
//! transaction before the network hears of them; state is moved by the loop alone and seen by others as a copy;
//! every task it starts is awaited when it stops. It knows no window, no HTTP server and no database but its journal.

pub mod clock;
mod detectors;
mod directory;
mod earlier;
mod event_loop;
pub mod identity;
mod memory;
pub mod office_settings;
mod outbox;
pub mod paths;
mod pool;
mod recovery;
pub mod request;
mod rules;
mod served;
pub mod settings;
pub mod settings_file;
pub mod sign_in;
#[cfg(test)]
mod sim;
mod start;
mod stopping;
pub mod view;

pub use directory::HookRefusal;
pub use earlier::EarlierSignIn;
pub use served::results_waiting;
pub use start::{Client, ClientConfig, FirstAgent, FirstOffice, Machine, StartError};
pub use stopping::StopHow;

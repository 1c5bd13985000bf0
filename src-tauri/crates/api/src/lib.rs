//! The client's local API: methods, events and terminal streams over HTTP and WebSocket on loopback, and the UI's
//! files. Windows and browsers speak the same.
//!
//! It holds no logic: a handler checks who asks, calls the client, and gives the answer a form. Every call but the
//! UI's files, the agents' hooks and the proof of who listens needs the token; Host and Origin are checked on all of
//! them.

mod access;
mod assets;
mod events;
mod hooks;
mod rpc;
mod server;
mod terminal_stream;

pub use access::Token;
pub use server::{ApiError, Listener, serve};

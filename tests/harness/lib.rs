//! What the stories share: a stand-in for the model's API, the real `claude` program in a home of its own, clocks,
//! and waiting without sleeping.

pub mod claude;
pub mod clock;
pub mod dice;
pub mod guard;
pub mod hub_process;
pub mod invariants;
pub mod place;
pub mod port;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod remote;
pub mod station;
pub mod stub;
pub mod wait;
pub mod world;

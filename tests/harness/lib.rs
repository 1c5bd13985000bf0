//! What the stories share: a stand-in for the model's API, the real `claude` program in a home of its own, clocks,
//! and waiting without sleeping.

pub mod claude;
pub mod clock;
pub mod program;
pub mod remote;
pub mod stub;
pub mod wait;
pub mod world;

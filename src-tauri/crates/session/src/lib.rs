//! One actor per session: turn tracking, evidence, the pool

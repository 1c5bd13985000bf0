//! Stories, recordings, tidiness: one test binary.

//! The semo program: up, client, hub, send, tail, status, doctor

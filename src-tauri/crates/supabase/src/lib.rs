//! The office's protocols from the client side: auth, REST, Realtime

//! The client's local API over HTTP and WebSocket; serves the UI

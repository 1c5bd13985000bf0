//! PTY, child process tree, screen, scrollback

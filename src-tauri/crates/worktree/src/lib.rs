//! Git worktrees, preserve refs, persona files

//! Claude Code (`claude`, npm package `@anthropic-ai/claude-code`), in its interactive terminal interface.
//!
//! What is relied on was measured with version 2.1.197; each submodule names the behaviour it rests on.

mod failure;
mod hooks;
mod input;
mod launch;
mod program;
mod sign_in;
mod status;
mod transcript;

pub use failure::{AuthFailure, auth_failure, failure_class, reset_at, retry_on};
pub use hooks::{
    HOOK_BYTES_MAX, HookEvent, HookFault, HookHead, HookKind, background_of, notified_of, parse_hook,
};
pub use input::{CLEAR_BOX, ENTER, Echo, INTERRUPT, PromptFault, echo, echo_shown, guard_prompt, paste};
pub use launch::{ClaudeLaunch, Conversation, HOOK_SECRET_HEADER, HookEndpoint, PermissionMode, config_dir};
pub use program::{
    INSTALL_HINT, NO_PERMISSION_STEPS, PROGRAM, SIGN_IN_HINT, SIGN_IN_STEPS, find_program, version,
};
pub use sign_in::{SignIn, sign_in};
pub use status::{Activity, StatusFile, read_status};
pub use transcript::{
    DatedFact, LINE_BYTES_MAX, READ_BYTES_MAX, TranscriptError, TranscriptFact, TranscriptPlace,
    TranscriptReader, background_in_record, transcript_path,
};

//! The scripted agent: our test double, a real process that speaks what Claude Code speaks and does as its prompts
//! say (`tests/harness/bin/scripted_agent`). It is started, driven and read exactly as `claude` is, so that what holds
//! for it holds for the production path; only the program differs. Called by `client` for agents of this provider.

use std::path::PathBuf;

use crate::claude::ClaudeLaunch;

/// Name of the provider, as agents' rows have it.
pub const PROVIDER: &str = "scripted";
/// How a user gets it.
pub const INSTALL_HINT: &str = "it is a test double: build it with `cargo build -p tests --bin scripted-agent` and name its path in the settings \
     (`[scripted] program`)";

/// How the program `program` is started: with the same start files, hooks and environment as `like`, and with its own
/// arguments (`--script …`) behind ours. What the real program may do unasked means nothing to it.
pub fn launch(program: PathBuf, args: Vec<String>, like: &ClaudeLaunch) -> ClaudeLaunch {
    ClaudeLaunch {
        program,
        extra_args: args,
        ..like.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use domain::SessionId;
    use terminal::Size;

    use super::*;
    use crate::claude::{Conversation, HookEndpoint, PermissionMode};

    #[test]
    fn it_is_started_with_the_same_files_as_claude() {
        let folder = tempfile::tempdir().unwrap();
        let claude = ClaudeLaunch {
            program: "/opt/claude".into(),
            base_env: vec![("HOME".into(), "/home/u".into())],
            hooks: HookEndpoint {
                url: "http://127.0.0.1:4242/hooks".into(),
                secret: "abc123".into(),
            },
            runtime_dir: folder.path().join("run"),
            permission_mode: PermissionMode::AsConfigured,
            extra_args: vec!["--model".into(), "x".into()],
        };
        let scripted = launch(
            "/opt/scripted".into(),
            vec!["--script".into(), "deaf".into()],
            &claude,
        );
        let id = SessionId(uuid::Uuid::from_u128(7));
        let size = Size { cols: 80, rows: 24 };
        let spec = scripted
            .prepare(id, "FE", Path::new("/w"), size, Conversation::New(id))
            .unwrap();
        assert_eq!(spec.program, Path::new("/opt/scripted"));
        assert!(spec.args.ends_with(&["--script".to_owned(), "deaf".to_owned()]));
        assert!(!spec.args.contains(&"--model".to_owned()));
        assert!(spec.args.contains(&id.to_string()) && scripted.settings_path(id).is_file());
    }
}

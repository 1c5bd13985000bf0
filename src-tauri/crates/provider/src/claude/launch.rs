//! Starting the program: its arguments, its environment, its start-up files.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use domain::SessionId;
use serde_json::{Value, json};
use terminal::{Size, SpawnSpec};

use super::hooks::{EVENTS, HELD_EVENT};
use crate::error::ProviderError;

/// Header that carries the secret of [`HookEndpoint`] in every hook request.
pub const HOOK_SECRET_HEADER: &str = "X-Semo-Hook";
/// How long the program waits for an answer to a hook, in seconds. It stands still meanwhile, so an endpoint answers
/// at once.
const HOOK_TIMEOUT_S: u32 = 5;
/// The same for the hook that a person answers. Its dialog can be answered meanwhile, and stays when this is over.
const HELD_HOOK_TIMEOUT_S: u32 = 24 * 60 * 60;
/// Longest title, in characters: it shares a row with the input box.
const TITLE_CHARS_MAX: usize = 40;

/// Set for the program, whatever the user's environment says.
const SET: &[(&str, &str)] = &[
    ("TERM", "xterm-256color"),
    ("COLORTERM", "truecolor"),
    // Skips the question whether the worktree is to be trusted, and nothing else (its only use in 2.1.197): the
    // owner of this machine has named the repository in our settings. The other way would be to edit the user's
    // `.claude.json` under the hands of running programs.
    ("CLAUDE_CODE_SANDBOXED", "1"),
];

/// Left out: set by a `claude` that may have started us, or by a terminal that is not ours, or switching the
/// program to a renderer that its screen cannot be read from.
const FOREIGN: &[&str] = &[
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_SSE_PORT",
    "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_SESSION_NAME",
    "CLAUDE_CODE_SESSION_KIND",
    "CLAUDE_CODE_NO_FLICKER",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE",
    "CLAUDE_AX_SCREEN_READER",
    "CLAUDE_EFFORT",
    "AI_AGENT",
    "COLUMNS",
    "LINES",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "VTE_VERSION",
    "WINDOWID",
    "WT_SESSION",
];
/// Left out: all variables that begin so.
const FOREIGN_PREFIXES: &[&str] = &[
    "KITTY_",
    "ITERM_",
    "WEZTERM_",
    "ALACRITTY_",
    "KONSOLE_",
    "VSCODE_",
    "SEMO_",
];

/// Where the program reports what it does.
#[derive(Clone)]
pub struct HookEndpoint {
    /// Base of the hook addresses: `http://127.0.0.1:PORT/hooks`; a session's id is appended as one more segment.
    pub url: String,
    /// Value of the header [`HOOK_SECRET_HEADER`]; whoever lacks it is not the program.
    pub secret: String,
}

impl std::fmt::Debug for HookEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookEndpoint")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What the program may do without asking a person (`--permission-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PermissionMode {
    /// The user's own settings decide.
    #[default]
    AsConfigured,
    /// Edits of files are allowed; everything else asks.
    AcceptEdits,
    /// Nothing is asked. Refused by the program when it runs as root.
    BypassPermissions,
}

/// What the program is to talk on with. The id is the program's own, which is the session's until `/clear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversation {
    /// A new one under this id.
    New(SessionId),
    /// The one of this id, which must exist.
    Resume(SessionId),
}

/// Everything needed to start the program that does not differ from session to session.
#[derive(Clone)]
pub struct ClaudeLaunch {
    /// The program (see [`super::find_program`]).
    pub program: PathBuf,
    /// The user's environment, as the program is to get it: `HOME` and `PATH` at least.
    pub base_env: Vec<(String, String)>,
    /// Where it reports to.
    pub hooks: HookEndpoint,
    /// A folder of ours for start-up files; made with mode 0700 when absent.
    pub runtime_dir: PathBuf,
    /// What it may do without asking.
    pub permission_mode: PermissionMode,
    /// Arguments from the user's settings, put behind ours.
    pub extra_args: Vec<String>,
}

impl std::fmt::Debug for ClaudeLaunch {
    /// The environment may hold keys: it is left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaudeLaunch")
            .field("program", &self.program)
            .field("hooks", &self.hooks)
            .field("permission_mode", &self.permission_mode)
            .finish_non_exhaustive()
    }
}

impl ClaudeLaunch {
    /// Writes the start-up files of one session and says how to start it. The user's own sign-in and settings stay
    /// in force: `HOME` is theirs, and what is added goes through a settings file of ours.
    pub fn prepare(
        &self,
        session: SessionId,
        title: &str,
        worktree: &Path,
        size: Size,
        conversation: Conversation,
    ) -> Result<SpawnSpec, ProviderError> {
        let settings = self.write_settings(session)?;
        let (begin, id) = match conversation {
            Conversation::New(id) => ("--session-id", id),
            Conversation::Resume(id) => ("--resume", id),
        };
        let mut args = vec![
            begin.to_owned(),
            id.to_string(),
            "--settings".to_owned(),
            settings
                .to_str()
                .ok_or_else(|| bad("runtime_dir", "its path is not UTF-8"))?
                .to_owned(),
        ];
        // A fixed name also saves the extra request by which the program would make one up.
        args.extend(["-n".to_owned(), shown_title(title, session)]);
        if let Some(mode) = self.permission_mode.argument() {
            args.extend(["--permission-mode".to_owned(), mode.to_owned()]);
        }
        args.extend(self.extra_args.iter().cloned());
        if let Some(arg) = args.iter().find(|arg| arg.contains('\0')) {
            return Err(bad("extra_args", &format!("{arg:?} holds a zero byte")));
        }
        Ok(SpawnSpec {
            program: self.program.clone(),
            args,
            cwd: worktree.to_owned(),
            env: environment(&self.base_env),
            size,
        })
    }

    /// Where [`prepare`](Self::prepare) puts the settings file of a session, for whoever cleans up after it.
    pub fn settings_path(&self, session: SessionId) -> PathBuf {
        self.runtime_dir.join(format!("{session}.claude-settings.json"))
    }

    /// The file holds the hooks' secret: only its owner may read it. The secret is not put into the environment,
    /// because every command of the agent would see it there.
    fn write_settings(&self, session: SessionId) -> Result<PathBuf, ProviderError> {
        if self.hooks.secret.is_empty() || !self.hooks.secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(bad("hook secret", "it must be letters and digits"));
        }
        let path = self.settings_path(session);
        let failed = |source| ProviderError::StartupFile {
            path: path.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.runtime_dir)
            .map_err(failed)?;
        let text = settings(&self.hooks, session).to_string();
        // A file that is left over from a crash may have any mode: it is replaced, not written into.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed)?;
        Ok(path)
    }
}

impl PermissionMode {
    fn argument(self) -> Option<&'static str> {
        match self {
            PermissionMode::AsConfigured => None,
            PermissionMode::AcceptEdits => Some("acceptEdits"),
            PermissionMode::BypassPermissions => Some("bypassPermissions"),
        }
    }
}

fn bad(what: &'static str, reason: &str) -> ProviderError {
    ProviderError::BadValue {
        what,
        reason: reason.to_owned(),
    }
}

/// The settings that are laid over the user's own. Besides the hooks: the renderer, key bindings and empty input box
/// that the reading of the screen rests on.
fn settings(hooks: &HookEndpoint, session: SessionId) -> Value {
    let hook = |timeout: u32| {
        json!({
            "type": "http",
            "url": format!("{}/{session}", hooks.url.trim_end_matches('/')),
            "timeout": timeout,
            "headers": { HOOK_SECRET_HEADER: hooks.secret },
        })
    };
    let events: serde_json::Map<String, Value> = EVENTS
        .iter()
        .map(|event| {
            let timeout = if *event == HELD_EVENT {
                HELD_HOOK_TIMEOUT_S
            } else {
                HOOK_TIMEOUT_S
            };
            ((*event).to_owned(), json!([{ "hooks": [hook(timeout)] }]))
        })
        .collect();
    json!({
        "hooks": events,
        "tui": "default",
        "editorMode": "normal",
        "promptSuggestionEnabled": false,
    })
}

/// Variables that send a program's requests through a proxy.
const PROXY_VARIABLES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// The program's environment: the user's, without what would tell it that it runs inside another program, and with
/// what it needs to know about our terminal.
fn environment(base: &[(String, String)]) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = base
        .iter()
        .filter(|(name, _)| {
            let set_by_us = SET.iter().any(|(set, _)| set == name);
            let foreign = FOREIGN.contains(&name.as_str())
                || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            !set_by_us && !foreign
        })
        .cloned()
        .collect();
    env.extend(
        SET.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    reach_us_without_proxy(&mut env);
    env
}

/// Behind a proxy the program would send its hooks there as well; ours is on loopback.
fn reach_us_without_proxy(env: &mut Vec<(String, String)>) {
    const LOOPBACK: &str = "127.0.0.1";
    let proxied = env.iter().any(|(name, _)| {
        PROXY_VARIABLES
            .iter()
            .any(|proxy| name.eq_ignore_ascii_case(proxy))
    });
    if !proxied {
        return;
    }
    for name in ["NO_PROXY", "no_proxy"] {
        match env.iter_mut().find(|(its, _)| its == name) {
            Some((_, hosts)) if hosts.split(',').any(|host| matches!(host.trim(), LOOPBACK | "*")) => {}
            Some((_, hosts)) if hosts.trim().is_empty() => *hosts = LOOPBACK.to_owned(),
            Some((_, hosts)) => hosts.push_str(&format!(",{LOOPBACK}")),
            None => env.push((name.to_owned(), LOOPBACK.to_owned())),
        }
    }
}

/// The title as an argument that cannot be taken for a flag, and as one short line.
fn shown_title(title: &str, session: SessionId) -> String {
    let line: String = title
        .chars()
        .filter(|c| !c.is_control())
        .take(TITLE_CHARS_MAX)
        .collect();
    let line = line.trim().trim_start_matches('-').trim_start();
    if line.is_empty() {
        session.short()
    } else {
        line.to_owned()
    }
}

/// Where the program keeps its transcripts and status files: `CLAUDE_CONFIG_DIR`, or `.claude` in `HOME`.
pub fn config_dir(env: &[(String, String)]) -> Option<PathBuf> {
    let value = |wanted: &str| {
        env.iter()
            .rev()
            .find(|(name, value)| name == wanted && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value))
    };
    value("CLAUDE_CONFIG_DIR").or_else(|| value("HOME").map(|home| home.join(".claude")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn launch(runtime_dir: &Path) -> ClaudeLaunch {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        ClaudeLaunch {
            program: PathBuf::from("/opt/claude"),
            base_env: vec![
                pair("HOME", "/home/u"),
                pair("TERM", "dumb"),
                pair("CLAUDECODE", "1"),
                pair("ANTHROPIC_BASE_URL", "http://127.0.0.1:1"),
                pair("KITTY_PID", "1"),
                pair("SEMO_TOKEN", "x"),
            ],
            hooks: HookEndpoint {
                url: "http://127.0.0.1:4242/hooks/".into(),
                secret: "abc123".into(),
            },
            runtime_dir: runtime_dir.to_owned(),
            permission_mode: PermissionMode::AcceptEdits,
            extra_args: vec!["--model".into(), "x".into()],
        }
    }

    const SIZE: Size = Size { cols: 80, rows: 24 };

    #[test]
    fn behind_a_proxy_the_hooks_still_come_straight_to_us() {
        let with = |extra: &[(&str, &str)]| {
            let base: Vec<_> = extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let env = environment(&base);
            let value = |wanted: &str| {
                env.iter()
                    .find(|(name, _)| name == wanted)
                    .map(|(_, value)| value.clone())
            };
            (value("NO_PROXY"), value("no_proxy"))
        };
        let proxy = ("https_proxy", "http://proxy:3128");
        assert_eq!(
            with(&[]),
            (None, None),
            "nothing is added where there is no proxy"
        );
        assert_eq!(
            with(&[proxy]),
            (Some("127.0.0.1".into()), Some("127.0.0.1".into()))
        );
        let (upper, lower) = with(&[proxy, ("NO_PROXY", "intra.example"), ("no_proxy", "127.0.0.1,x")]);
        assert_eq!(upper.as_deref(), Some("intra.example,127.0.0.1"));
        assert_eq!(lower.as_deref(), Some("127.0.0.1,x"));
    }

    #[test]
    fn a_launch_names_the_session_its_settings_and_its_title() {
        let folder = tempfile::tempdir().unwrap();
        let id = SessionId(uuid::Uuid::from_u128(7));
        let launch = launch(&folder.path().join("run"));
        let spec = launch
            .prepare(id, "--FE\n work", Path::new("/w"), SIZE, Conversation::New(id))
            .unwrap();
        let settings = launch.settings_path(id);
        assert_eq!(
            spec.args,
            [
                "--session-id",
                &id.to_string(),
                "--settings",
                settings.to_str().unwrap(),
                "-n",
                "FE work",
                "--permission-mode",
                "acceptEdits",
                "--model",
                "x"
            ]
        );
        let written: Value = serde_json::from_str(&fs::read_to_string(&settings).unwrap()).unwrap();
        let hook = &written["hooks"]["Stop"][0]["hooks"][0];
        assert_eq!(hook["url"], format!("http://127.0.0.1:4242/hooks/{id}"));
        assert_eq!(hook["headers"][HOOK_SECRET_HEADER], "abc123");
        let held = &written["hooks"]["PermissionRequest"][0]["hooks"][0];
        assert!(held["timeout"].as_u64() > hook["timeout"].as_u64().map(|seconds| 1_000 * seconds));
        let again = launch
            .prepare(id, "t", Path::new("/w"), SIZE, Conversation::Resume(id))
            .unwrap();
        assert_eq!(again.args[..2], ["--resume".to_owned(), id.to_string()]);
    }

    #[test]
    fn the_secret_is_readable_by_its_owner_only_even_over_a_file_that_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let id = SessionId(uuid::Uuid::from_u128(7));
        let launch = launch(&folder.path().join("run"));
        fs::create_dir(&launch.runtime_dir).unwrap();
        fs::write(launch.settings_path(id), "old").unwrap();
        fs::set_permissions(launch.settings_path(id), fs::Permissions::from_mode(0o644)).unwrap();
        let spec = launch
            .prepare(id, "t", Path::new("/w"), SIZE, Conversation::New(id))
            .unwrap();
        let mode = fs::metadata(launch.settings_path(id))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!spec.env.iter().any(|(_, value)| value.contains("abc123")));
        assert!(!format!("{launch:?} {spec:?}").contains("abc123"));
    }

    #[test]
    fn the_environment_is_the_users_without_foreign_programs() {
        let env = environment(&launch(Path::new("/r")).base_env);
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "HOME",
                "ANTHROPIC_BASE_URL",
                "TERM",
                "COLORTERM",
                "CLAUDE_CODE_SANDBOXED"
            ]
        );
        assert_eq!(env[2].1, "xterm-256color");
    }

    #[test]
    fn the_config_folder_follows_the_users_environment() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let home = pair("HOME", "/h");
        assert_eq!(
            config_dir(std::slice::from_ref(&home)).unwrap(),
            Path::new("/h/.claude")
        );
        assert_eq!(
            config_dir(&[home, pair("CLAUDE_CONFIG_DIR", "/c")]).unwrap(),
            Path::new("/c")
        );
        assert_eq!(config_dir(&[]), None);
    }
}

//! What the program reports by itself: the bodies of its HTTP hooks.
//!
//! Only their shape is checked here; who sent them is the endpoint's question. Fields that are not there are left
//! empty: an older or newer version must not make us lose the end of a turn.

use serde::Deserialize;
use serde_json::Value;

/// Largest hook body that is read. A tool's output can be long; the program cuts it far below this.
pub const HOOK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The hooks that are asked for. `SessionStart` is none of them: it is never sent over HTTP.
pub(crate) const EVENTS: &[&str] = &[
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    HELD_EVENT,
    "Notification",
    "SubagentStart",
    "SubagentStop",
    "Stop",
    "StopFailure",
    "SessionEnd",
];

/// What the program puts in place of the answer of a tool that was interrupted.
const INTERRUPTED_TOOL: &str = "[Request interrupted by user for tool use]";
/// The hook whose answer decides something: it is held open until a person has answered.
pub(crate) const HELD_EVENT: &str = "PermissionRequest";
/// How the prompt begins by which the program wakes its agent when background work has ended.
const NOTIFICATION_START: &str = "<task-notification>";

/// A hook report.
#[derive(Debug, Clone, PartialEq)]
pub struct HookEvent {
    /// What all of them say.
    pub head: HookHead,
    /// What this one says.
    pub kind: HookKind,
}

/// What all hook reports say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HookHead {
    /// Name of the hook.
    pub hook_event_name: String,
    /// The program's session; differs from the one it was started with after `/clear`.
    pub session_id: String,
    /// Full path of the transcript.
    #[serde(default)]
    pub transcript_path: String,
    /// The program's working folder.
    #[serde(default)]
    pub cwd: String,
    /// Set when a sub-agent is speaking, not the session's own agent.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// The prompt that all this is about; the transcript's lines name it too.
    #[serde(default)]
    pub prompt_id: Option<String>,
}

/// The hooks by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum HookKind {
    /// A prompt was submitted: the acknowledgement, with the exact text.
    PromptSubmitted {
        /// The text.
        prompt: String,
    },
    /// A tool is about to be used; whether it may is not decided yet.
    ToolUse {
        /// The tool.
        name: String,
        /// Its input.
        input: Value,
        /// The use, in the program's own naming.
        id: Option<String>,
    },
    /// A tool was used.
    ToolDone {
        /// The tool.
        name: String,
        /// Its input.
        input: Value,
        /// What it answered; an error's text for one that failed.
        response: Value,
        /// How long it took, in milliseconds.
        duration_ms: Option<u64>,
        /// Whether it worked.
        ok: bool,
        /// The use, in the program's own naming.
        id: Option<String>,
    },
    /// The agent stopped by itself.
    Stop {
        /// Its last message.
        last_message: String,
        /// The ids of background tasks and sub-agents that still run and will wake it again.
        background: Vec<String>,
        /// A stop hook did not let it stop the last time: this is one more try.
        again: bool,
    },
    /// The turn failed for good; retries are over.
    StopFailure {
        /// The program's name for the error.
        error: String,
        /// The message for people.
        detail: String,
    },
    /// The program asks a person whether a tool may be used.
    PermissionRequest {
        /// The tool.
        tool: String,
        /// Its input.
        input: Value,
    },
    /// Something a person might want to know.
    Notification {
        /// Its kind: `permission_prompt`, `idle_prompt` …
        kind: String,
        /// Its text.
        message: String,
    },
    /// A sub-agent began to work.
    SubagentStart,
    /// A sub-agent ended; the turn goes on. Its id is in the head.
    SubagentStop,
    /// The program's session ended: `/clear`, `/exit`, a signal.
    SessionEnd {
        /// Why.
        reason: String,
    },
    /// A hook this version of ours does not know.
    Other,
}

/// A body that is no hook report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookFault {
    /// Longer than [`HOOK_BYTES_MAX`].
    #[error("the hook report has {bytes} bytes; at most {HOOK_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not the JSON of a hook.
    #[error("the hook report cannot be read: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
}

/// Every field of every hook we know, all optional.
#[derive(Deserialize)]
struct Body {
    #[serde(flatten)]
    head: HookHead,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    tool_name: String,
    #[serde(default)]
    tool_input: Value,
    #[serde(default)]
    tool_response: Value,
    #[serde(default)]
    duration_ms: Option<f64>,
    #[serde(default)]
    last_assistant_message: Option<String>,
    #[serde(default)]
    background_tasks: Vec<Value>,
    #[serde(default)]
    stop_hook_active: bool,
    #[serde(default)]
    tool_use_id: Option<String>,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    is_interrupt: bool,
    #[serde(default)]
    notification_type: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    reason: String,
}

/// Reads the body of one hook request.
pub fn parse_hook(body: &[u8]) -> Result<HookEvent, HookFault> {
    if body.len() > HOOK_BYTES_MAX {
        return Err(HookFault::TooLong { bytes: body.len() });
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| HookFault::Malformed {
        reason: error.to_string(),
    })?;
    let kind = match body.head.hook_event_name.as_str() {
        "UserPromptSubmit" => HookKind::PromptSubmitted { prompt: body.prompt },
        "PreToolUse" => HookKind::ToolUse {
            name: body.tool_name,
            input: body.tool_input,
            id: body.tool_use_id,
        },
        name @ ("PostToolUse" | "PostToolUseFailure") => {
            let ok = name == "PostToolUse";
            HookKind::ToolDone {
                name: body.tool_name,
                input: body.tool_input,
                response: match (ok, body.is_interrupt, body.error.as_str()) {
                    (true, ..) => body.tool_response,
                    // As the transcript says it.
                    (false, true, error) => {
                        format!("{INTERRUPTED_TOOL}\n{}", error.unwrap_or_default()).into()
                    }
                    (false, false, _) => body.error,
                },
                // Milliseconds with a fraction of no interest; saturates on nonsense.
                duration_ms: body.duration_ms.map(|ms| ms as u64),
                ok,
                id: body.tool_use_id,
            }
        }
        "PermissionRequest" => HookKind::PermissionRequest {
            tool: body.tool_name,
            input: body.tool_input,
        },
        "Notification" => HookKind::Notification {
            kind: body.notification_type,
            message: body.message.unwrap_or_default(),
        },
        "SubagentStart" => HookKind::SubagentStart,
        "SubagentStop" => HookKind::SubagentStop,
        "Stop" => HookKind::Stop {
            last_message: body.last_assistant_message.unwrap_or_default(),
            background: running(&body.background_tasks),
            again: body.stop_hook_active,
        },
        "StopFailure" => HookKind::StopFailure {
            error: body.error.as_str().unwrap_or_default().to_owned(),
            detail: body.last_assistant_message.unwrap_or_default(),
        },
        "SessionEnd" => HookKind::SessionEnd { reason: body.reason },
        _ => HookKind::Other,
    };
    Ok(HookEvent {
        head: body.head,
        kind,
    })
}

/// The ids of the tasks in a list that are not said to be over. One without an id counts by its place.
fn running(tasks: &[Value]) -> Vec<String> {
    let over = |task: &Value| {
        let status = task["status"].as_str().unwrap_or("running");
        matches!(
            status,
            "completed" | "failed" | "killed" | "cancelled" | "stopped"
        )
    };
    tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| !over(task))
        .map(|(place, task)| {
            let named = task["id"].as_str().map(str::to_owned);
            named.unwrap_or_else(|| format!("task {place}"))
        })
        .collect()
}

/// The id of the background work that a tool has left running, as its answer names it.
pub fn background_of(tool: &str, response: &Value) -> Option<String> {
    let id = match tool {
        "Bash" => &response["backgroundTaskId"],
        "Agent" | "Task" if response["isAsync"] == true => &response["agentId"],
        _ => return None,
    };
    id.as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// When a prompt is the program's own note that background work has ended: the ids of that work.
pub fn notified_of(prompt: &str) -> Option<Vec<String>> {
    if !prompt.trim_start().starts_with(NOTIFICATION_START) {
        return None;
    }
    let ids = prompt.split("<task-id>").skip(1).filter_map(|rest| {
        let (id, _) = rest.split_once("</task-id>")?;
        Some(id.trim().to_owned())
    });
    Some(ids.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(name: &str, fields: Value) -> HookKind {
        let mut body =
            json!({"hook_event_name": name, "session_id": "s", "transcript_path": "/t.jsonl", "cwd": "/w"});
        for (key, value) in fields.as_object().unwrap() {
            body[key] = value.clone();
        }
        let event = parse_hook(body.to_string().as_bytes()).unwrap();
        assert_eq!(event.head.transcript_path, "/t.jsonl");
        event.kind
    }

    #[test]
    fn the_bodies_of_2_1_197_are_understood() {
        assert_eq!(
            hook(
                "UserPromptSubmit",
                json!({"prompt": "안녕", "session_title": "FE"})
            ),
            HookKind::PromptSubmitted {
                prompt: "안녕".into()
            }
        );
        assert_eq!(
            hook(
                "Stop",
                json!({"effort": {"level": "high"}, "stop_hook_active": false, "last_assistant_message": "ok\n\n[SEMO:DONE]",
                       "background_tasks": [{"id": "b1", "status": "running"}, {"id": "b0", "status": "completed"}], "session_crons": []})
            ),
            HookKind::Stop {
                last_message: "ok\n\n[SEMO:DONE]".into(),
                background: vec!["b1".into()],
                again: false
            }
        );
        let again = hook(
            "Stop",
            json!({"stop_hook_active": true, "last_assistant_message": "ok"}),
        );
        assert!(matches!(again, HookKind::Stop { again: true, .. }), "{again:?}");
        assert_eq!(
            hook(
                "StopFailure",
                json!({"error": "billing_error", "last_assistant_message": "Credit balance is too low"})
            ),
            HookKind::StopFailure {
                error: "billing_error".into(),
                detail: "Credit balance is too low".into()
            }
        );
        let failed = hook(
            "PostToolUseFailure",
            json!({"tool_name": "Bash", "tool_input": {"command": "x"}, "tool_use_id": "t", "error": "Exit code 127",
                   "is_interrupt": false, "duration_ms": 99}),
        );
        assert_eq!(
            failed,
            HookKind::ToolDone {
                name: "Bash".into(),
                input: json!({"command": "x"}),
                response: json!("Exit code 127"),
                duration_ms: Some(99),
                ok: false,
                id: Some("t".into())
            }
        );
        let interrupted = hook(
            "PostToolUseFailure",
            json!({"tool_name": "Bash", "tool_input": {}, "error": "Exit code 137", "is_interrupt": true}),
        );
        let HookKind::ToolDone { response, ok, .. } = interrupted else {
            panic!("{interrupted:?}");
        };
        assert_eq!(response, format!("{INTERRUPTED_TOOL}\nExit code 137"));
        assert!(!ok);
        assert_eq!(hook("FutureHook", json!({"a": 1})), HookKind::Other);
    }

    #[test]
    fn background_work_is_known_by_its_id_from_its_start_to_the_note_of_its_end() {
        let shell = json!({"stdout": "", "stderr": "", "backgroundTaskId": "b7"});
        assert_eq!(background_of("Bash", &shell), Some("b7".into()));
        assert_eq!(background_of("Bash", &json!({"stdout": "x"})), None);
        let agent = json!({"isAsync": true, "status": "async_launched", "agentId": "a7"});
        assert_eq!(background_of("Agent", &agent), Some("a7".into()));
        assert_eq!(
            background_of("Agent", &json!({"status": "completed", "agentId": "a7"})),
            None
        );
        let note =
            "<task-notification>\n<task-id>b7</task-id>\n<status>completed</status>\n</task-notification>";
        assert_eq!(notified_of(note), Some(vec!["b7".into()]));
        assert_eq!(notified_of("what does <task-notification> mean?"), None);
    }

    #[test]
    fn a_stop_without_its_fields_is_still_a_stop() {
        assert_eq!(
            hook("Stop", json!({})),
            HookKind::Stop {
                last_message: String::new(),
                background: Vec::new(),
                again: false
            }
        );
    }

    #[test]
    fn what_is_no_hook_is_refused_without_a_panic() {
        for body in [
            &b""[..],
            b"[]",
            b"{}",
            b"\xff\xfe",
            br#"{"hook_event_name": 7, "session_id": "s"}"#,
        ] {
            assert!(
                matches!(parse_hook(body), Err(HookFault::Malformed { .. })),
                "{body:?}"
            );
        }
        assert!(matches!(
            parse_hook(&vec![b' '; HOOK_BYTES_MAX + 1]),
            Err(HookFault::TooLong { .. })
        ));
    }
}

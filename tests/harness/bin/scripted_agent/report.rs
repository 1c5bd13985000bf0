//! What the agent tells about itself besides its screen: hooks over HTTP, the transcript, the status file.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::script::Faults;

/// How long an answer to a hook is awaited when the settings do not say.
const HOOK_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Idle,
    Busy,
    Waiting,
}

pub struct Report {
    session: Mutex<String>,
    settings: Value,
    config: PathBuf,
    cwd: PathBuf,
    faults: Mutex<Faults>,
    /// The id of the prompt that is worked on; hooks and transcript name it.
    prompt: Mutex<String>,
    /// The id of the newest line of the transcript: each line names the one it follows.
    last_line: Mutex<Option<String>>,
    /// A hook that is sent behind the next one.
    held_back: Mutex<Option<(String, Value)>>,
}

fn config_dir() -> PathBuf {
    let named = std::env::var_os("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".claude"))
}

fn transcript_of(session: &str) -> PathBuf {
    let cwd = std::env::current_dir().unwrap_or_default();
    let folder: String = cwd
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    config_dir()
        .join("projects")
        .join(folder)
        .join(format!("{session}.jsonl"))
}

impl Report {
    pub fn new(session: String, settings: Option<&Path>) -> Report {
        let settings = settings.and_then(|file| fs::read(file).ok());
        Report {
            session: Mutex::new(session),
            settings: settings
                .and_then(|text| serde_json::from_slice(&text).ok())
                .unwrap_or(Value::Null),
            config: config_dir(),
            cwd: std::env::current_dir().unwrap_or_default(),
            faults: Mutex::default(),
            prompt: Mutex::default(),
            last_line: Mutex::default(),
            held_back: Mutex::default(),
        }
    }

    pub fn transcript_exists(session: &str) -> bool {
        transcript_of(session).exists()
    }

    pub fn session(&self) -> String {
        self.session.lock().unwrap().clone()
    }

    /// A new id, as after `/clear`.
    pub fn new_session(&self) {
        *self.session.lock().unwrap() = uuid::Uuid::new_v4().to_string();
    }

    /// The next reports are about a new prompt.
    pub fn begin_turn(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
        *self.prompt.lock().unwrap() = uuid::Uuid::new_v4().to_string();
    }

    /// Prompt and last answer of the turns of before.
    pub fn past_turns(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(transcript_of(&self.session())).unwrap_or_default();
        let mut turns: Vec<(String, String)> = Vec::new();
        for line in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            let said = line["message"]["content"].as_str().map(str::to_owned);
            let said = said.or_else(|| line["message"]["content"][0]["text"].as_str().map(str::to_owned));
            match (line["type"].as_str(), said) {
                (Some("user"), Some(prompt)) => turns.push((prompt, String::new())),
                (Some("assistant"), Some(answer)) => {
                    if let Some(turn) = turns.last_mut() {
                        turn.1 = answer;
                    }
                }
                _ => {}
            }
        }
        turns
    }

    pub fn status(&self, status: Status) {
        let folder = self.config.join("sessions");
        let _ = fs::create_dir_all(&folder);
        let pid = std::process::id();
        let word = match status {
            Status::Idle => "idle",
            Status::Busy => "busy",
            Status::Waiting => "waiting",
        };
        let mut file = json!({
            "pid": pid, "sessionId": self.session(), "cwd": self.cwd, "version": "2.1.197", "kind": "interactive",
            "status": word, "statusUpdatedAt": now_ms(), "updatedAt": now_ms(),
        });
        if status == Status::Waiting {
            file["waitingFor"] = json!("permission prompt");
        }
        let draft = folder.join(format!("{pid}.json.new"));
        if fs::write(&draft, file.to_string()).is_ok() {
            let _ = fs::rename(draft, folder.join(format!("{pid}.json")));
        }
    }

    pub fn forget_status(&self) {
        let _ = fs::remove_file(
            self.config
                .join("sessions")
                .join(format!("{}.json", std::process::id())),
        );
    }

    /// One line of the transcript, as late as the turn's faults say.
    pub fn write(&self, mut line: Value) {
        let faults = self.faults.lock().unwrap().clone();
        if faults.no_transcript {
            return;
        }
        let id = uuid::Uuid::new_v4().to_string();
        line["parentUuid"] = json!(self.last_line.lock().unwrap().replace(id.clone()));
        line["uuid"] = json!(id);
        if line["promptSource"] == "typed" {
            line["promptId"] = json!(*self.prompt.lock().unwrap());
        }
        line["sessionId"] = json!(self.session());
        line["timestamp"] = json!(rfc3339(now_ms()));
        line["isSidechain"] = line.get("isSidechain").cloned().unwrap_or(json!(false));
        line["cwd"] = json!(self.cwd);
        let path = transcript_of(&self.session());
        let append = move || {
            let _ = fs::create_dir_all(path.parent().unwrap());
            if let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path) {
                let _ = file.write_all(format!("{line}\n").as_bytes());
            }
        };
        match faults.transcript {
            Some(late) => {
                std::thread::spawn(move || {
                    std::thread::sleep(late);
                    append();
                });
            }
            None => append(),
        }
    }

    pub fn assistant(&self, text: &str, stop_reason: &str) {
        self.write(json!({
            "type": "assistant",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}], "stop_reason": stop_reason},
        }));
    }

    /// Sends a hook and gives back what was answered, as the turn's faults let it.
    pub fn hook(&self, event: &str, fields: Value) -> Value {
        let faults = self.faults.lock().unwrap().clone();
        if faults.lose.iter().any(|lost| lost == event) {
            return Value::Null;
        }
        if faults.reorder && event == "PostToolUse" {
            *self.held_back.lock().unwrap() = Some((event.to_owned(), fields));
            return Value::Null;
        }
        if let Some((_, late)) = faults.delay.iter().find(|(name, _)| name == event) {
            std::thread::sleep(*late);
        }
        let answer = self.send(event, &fields);
        if faults.double.iter().any(|name| name == event) {
            self.send(event, &fields);
        }
        if let Some((event, fields)) = self.held_back.lock().unwrap().take() {
            self.send(&event, &fields);
        }
        answer
    }

    fn send(&self, event: &str, fields: &Value) -> Value {
        self.open(event, fields)
            .and_then(answer_of)
            .unwrap_or(Value::Null)
    }

    /// Sends a hook whose answer is read by [`answer_of`], and which ends when the stream is shut down. `None` when
    /// nobody wants it, or the turn's faults lose it.
    pub fn open_hook(&self, event: &str, fields: &Value) -> Option<TcpStream> {
        let lost = self.faults.lock().unwrap().lose.iter().any(|lost| lost == event);
        if lost { None } else { self.open(event, fields) }
    }

    fn open(&self, event: &str, fields: &Value) -> Option<TcpStream> {
        let hook = self.settings["hooks"][event][0]["hooks"].get(0)?;
        let mut body = json!({
            "session_id": self.session(), "transcript_path": transcript_of(&self.session()), "cwd": self.cwd,
            "hook_event_name": event, "permission_mode": "default",
        });
        let prompt = self.prompt.lock().unwrap().clone();
        if !prompt.is_empty() {
            body["prompt_id"] = json!(prompt);
        }
        for (name, value) in fields.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        post(hook, &body.to_string())
    }
}

fn post(hook: &Value, body: &str) -> Option<TcpStream> {
    let url = hook["url"].as_str()?.strip_prefix("http://")?;
    let (host, path) = url.split_once('/')?;
    let wait = hook["timeout"].as_u64().map_or(HOOK_WAIT, Duration::from_secs);
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    let mut head = format!("POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    for (name, value) in hook["headers"].as_object().into_iter().flatten() {
        head.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap_or_default()));
    }
    head.push_str(&format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    ));
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    Some(stream)
}

pub fn answer_of(mut stream: TcpStream) -> Option<Value> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-21T05:46:49.321Z`, by the civil calendar.
fn rfc3339(ms: i64) -> String {
    domain::Timestamp(ms).rfc3339()
}

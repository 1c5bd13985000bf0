//! One turn: the steps of its script, and the reports that go with each.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Agent;
use crate::report::{Status, answer_of, now_ms};
use crate::script::{Script, Step};
use crate::wild;

/// How often a waiting step looks whether Esc was pressed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a turn did not come to its end.
enum Stopped {
    Interrupted,
    Failed,
}

struct Turn<'a> {
    agent: &'a Agent,
    script: &'a Script,
    mark: Option<String>,
    /// Whether anything has been answered.
    answered: bool,
    tools: usize,
}

/// Carries a prompt to its end.
pub fn carry_out(agent: &Agent, prompt: &str) {
    let script = Script::of(prompt);
    agent.interrupted.store(false, Ordering::SeqCst);
    agent.busy.store(true, Ordering::SeqCst);
    agent.report.begin_turn(script.faults.clone());
    agent.screen.prompt_row(prompt);
    agent.screen.working(true);
    agent.report.status(Status::Busy);
    agent.report.write(json!({
        "type": "user", "promptSource": "typed", "message": {"role": "user", "content": prompt},
    }));
    agent.report.hook("UserPromptSubmit", json!({"prompt": prompt}));
    let started = now_ms();
    let mut turn = Turn {
        agent,
        script: &script,
        mark: script.mark.clone(),
        answered: false,
        tools: 0,
    };
    let end = turn.run();
    if let Err(Stopped::Interrupted) = end {
        agent
            .screen
            .rows("  ⎿  Interrupted · What should Claude do instead?\r\n\r\n");
        agent.report.write(json!({
            "type": "user", "interruptedMessageId": "m",
            "message": {"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user]"}]},
        }));
        if !turn.answered {
            agent.screen.put_back(prompt);
        }
    } else {
        agent
            .report
            .write(json!({"type": "system", "subtype": "turn_duration", "durationMs": now_ms() - started}));
        agent.screen.rows(&format!(
            "\x1b[38;5;246m✻ Cooked for {}s\x1b[39m\r\n\r\n",
            (now_ms() - started) / 1000
        ));
    }
    agent.busy.store(false, Ordering::SeqCst);
    agent.screen.working(false);
    agent.report.status(Status::Idle);
}

impl Turn<'_> {
    fn run(&mut self) -> Result<(), Stopped> {
        for step in &self.script.steps {
            self.step(step)?;
            self.pause(Duration::ZERO)?;
        }
        let text = match &self.mark {
            Some(mark) => format!("It is done.\n\n{mark}"),
            None => "It is done.".to_owned(),
        };
        self.say(&text, "end_turn");
        self.stop(&text, &[]);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Stopped> {
        let screen = &self.agent.screen;
        match step {
            Step::Say(text) => self.say(text, "tool_use"),
            Step::Slow(time) => self.pause(*time)?,
            Step::Hang => {
                screen.rows("● It hangs.\r\n\r\n");
                loop {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
            Step::Die(code) => std::process::exit(*code),
            Step::Flood(bytes) => screen.raw(|out| wild::flood(out, *bytes)),
            Step::Garbage => screen.raw(|out| wild::garbage(out)),
            Step::Escapes => screen.raw(|out| wild::escapes(out)),
            Step::Fork => wild::fork(),
            Step::Tool(command) => self.tool(command, None)?,
            Step::Permission(command) => self.permission(command)?,
            Step::Both(first, second) => self.both(first, second)?,
            Step::Question(choices) => self.question(choices)?,
            Step::Background(time) => {
                let text = "It goes on in the background.";
                self.say(text, "end_turn");
                self.stop(text, &["b1"]);
                self.agent.screen.working(false);
                self.agent.report.status(Status::Idle);
                self.pause(*time)?;
                self.agent.screen.working(true);
                self.agent.report.status(Status::Busy);
            }
            Step::Subagent => self.subagent(),
            Step::Fail(class) => return self.fail(class),
            Step::NoMark => self.mark = None,
        }
        Ok(())
    }

    /// Waits; Esc ends the wait and the turn.
    fn pause(&self, time: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + time;
        loop {
            if self.agent.interrupted.swap(false, Ordering::SeqCst) {
                return Err(Stopped::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn say(&mut self, text: &str, stop_reason: &str) {
        self.answered = true;
        self.agent.screen.message(text);
        self.agent.report.assistant(text, stop_reason);
    }

    fn stop(&self, message: &str, background: &[&str]) {
        let tasks: Vec<Value> = background
            .iter()
            .map(|id| json!({"id": id, "status": "running"}))
            .collect();
        self.agent.report.hook(
            "Stop",
            json!({
                "stop_hook_active": false, "last_assistant_message": message, "background_tasks": tasks,
                "session_crons": [],
            }),
        );
    }

    fn fail(&mut self, class: &str) -> Result<(), Stopped> {
        let (status, error) = match class {
            "auth" => (401, "authentication_failed"),
            "billing" => (400, "billing_error"),
            "rate_limit" => (429, "rate_limit"),
            "overloaded" => (529, "server_error"),
            _ => (500, "server_error"),
        };
        let text = format!("API Error: {status} {class}");
        self.agent.screen.message(&text);
        self.agent.report.write(json!({
            "type": "assistant", "isApiErrorMessage": true, "apiErrorStatus": status, "error": error,
            "message": {"model": "<synthetic>", "content": [{"type": "text", "text": text}]},
        }));
        self.agent.report.hook(
            "StopFailure",
            json!({"error": error, "last_assistant_message": text}),
        );
        Err(Stopped::Failed)
    }

    /// Writes down that a command is wanted, as the real program does before it asks or runs.
    fn wants(&mut self, command: &str, agent: Option<&str>) -> Value {
        self.answered = true;
        self.tools += 1;
        let mut fields = json!({
            "tool_name": "Bash", "tool_input": {"command": command}, "tool_use_id": format!("t{}", self.tools),
        });
        if let Some(agent) = agent {
            fields["agent_id"] = json!(agent);
        }
        let id = fields["tool_use_id"].clone();
        self.agent.report.write(json!({
            "type": "assistant", "isSidechain": agent.is_some(),
            "message": {"role": "assistant", "stop_reason": "tool_use", "content": [
                {"type": "tool_use", "id": id, "name": "Bash", "input": {"command": command}},
            ]},
        }));
        self.agent.report.hook("PreToolUse", fields.clone());
        fields
    }

    fn tool(&mut self, command: &str, agent: Option<&str>) -> Result<(), Stopped> {
        let fields = self.wants(command, agent);
        self.run_tool(command, agent, fields)
    }

    /// Runs a command in a session of its own, as the real program does.
    fn run_tool(&mut self, command: &str, agent: Option<&str>, mut fields: Value) -> Result<(), Stopped> {
        let id = fields["tool_use_id"].clone();
        let started = Instant::now();
        let child = Command::new("setsid")
            .args(["sh", "-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            return Ok(());
        };
        while matches!(child.try_wait(), Ok(None)) {
            if let Err(stopped) = self.pause(LOOK_EVERY) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(stopped);
            }
        }
        let Ok(output) = child.wait_with_output() else {
            return Ok(());
        };
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        fields["duration_ms"] = json!(started.elapsed().as_millis() as u64);
        self.agent.screen.tool("Bash", command, &stdout);
        self.agent.report.write(json!({
            "type": "user", "isSidechain": agent.is_some(),
            "message": {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": id, "content": stdout, "is_error": !output.status.success()},
            ]},
        }));
        if output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            fields["tool_response"] = json!({"stdout": stdout, "stderr": stderr, "interrupted": false});
            self.agent.report.hook("PostToolUse", fields);
        } else {
            fields["error"] = json!(format!("Exit code {}", output.status.code().unwrap_or(-1)));
            self.agent.report.hook("PostToolUseFailure", fields);
        }
        Ok(())
    }

    fn permission(&mut self, command: &str) -> Result<(), Stopped> {
        let wanted = self.wants(command, None);
        let answer = self.ask(permission_rows(command), permission_fields(command));
        let decision = &answer["hookSpecificOutput"]["decision"];
        if is_allowed(&answer) {
            return self.run_tool(command, None, wanted);
        }
        match decision["message"].as_str() {
            Some(message) => {
                let text = format!("I was not allowed to: {message}");
                self.say(&text, "tool_use");
                Ok(())
            }
            None => Err(Stopped::Interrupted),
        }
    }

    /// Both hooks are open before the first dialog is answered, and nothing is painted between the dialogs.
    fn both(&mut self, first: &str, second: &str) -> Result<(), Stopped> {
        let (answers, answered) = mpsc::channel();
        *self.agent.dialog.lock().unwrap() = Some(answers.clone());
        self.agent.screen.dialog(Some(permission_rows(first)));
        self.agent.report.status(Status::Waiting);
        let mut allowed = Vec::new();
        let open = [first, second].map(|command| {
            let fields = permission_fields(command);
            (command, self.agent.report.open_hook("PermissionRequest", &fields))
        });
        for (command, request) in open {
            self.agent.screen.dialog(Some(permission_rows(command)));
            let listening = request.as_ref().and_then(|request| request.try_clone().ok());
            let answers = answers.clone();
            std::thread::spawn(move || {
                let answer = listening.and_then(answer_of).unwrap_or(Value::Null);
                if answer["hookSpecificOutput"]["decision"]["behavior"].is_string() {
                    let _ = answers.send(answer);
                }
            });
            if is_allowed(&answered.recv().unwrap_or(Value::Null)) {
                allowed.push(command);
            }
            if let Some(request) = request {
                let _ = request.shutdown(std::net::Shutdown::Both);
            }
        }
        *self.agent.dialog.lock().unwrap() = None;
        self.agent.screen.dialog(None);
        self.agent.report.status(Status::Busy);
        for command in allowed {
            self.tool(command, None)?;
        }
        Ok(())
    }

    fn question(&mut self, choices: &[String]) -> Result<(), Stopped> {
        let options: Vec<Value> = choices
            .iter()
            .map(|label| json!({"label": label, "description": ""}))
            .collect();
        let question = "Which one shall it be?";
        let input = json!({"questions": [{"question": question, "header": "Choice", "options": options, "multiSelect": false}]});
        self.agent.report.hook(
            "PreToolUse",
            json!({"tool_name": "AskUserQuestion", "tool_input": input, "tool_use_id": "q1"}),
        );
        let mut rows = vec![
            " ☐ Choice".to_owned(),
            String::new(),
            question.to_owned(),
            String::new(),
        ];
        for (number, label) in choices.iter().enumerate() {
            let sign = if number == 0 { '❯' } else { ' ' };
            rows.push(format!("{sign} {}. {label}", number + 1));
        }
        rows.extend([
            String::new(),
            "Enter to select · ↑/↓ to navigate · Esc to cancel".to_owned(),
        ]);
        let answer = self.ask(rows, json!({"tool_name": "AskUserQuestion", "tool_input": input}));
        let by_key = answer["key"].as_str().and_then(|key| key.parse::<usize>().ok());
        let chosen = by_key.and_then(|number| choices.get(number.wrapping_sub(1)).cloned());
        let updated = &answer["hookSpecificOutput"]["decision"]["updatedInput"]["answers"][question];
        let Some(chosen) = chosen.or_else(|| updated.as_str().map(str::to_owned)) else {
            return Err(Stopped::Interrupted);
        };
        self.agent.report.hook(
            "PostToolUse",
            json!({"tool_name": "AskUserQuestion", "tool_input": input, "tool_response": {"answers": {question: chosen}}}),
        );
        self.say(&format!("You chose {chosen}."), "tool_use");
        Ok(())
    }

    /// Opens a dialog and asks by hook as well; the first answer counts.
    fn ask(&self, rows: Vec<String>, fields: Value) -> Value {
        let (answers, answered) = mpsc::channel();
        *self.agent.dialog.lock().unwrap() = Some(answers.clone());
        self.agent.screen.dialog(Some(rows));
        self.agent.report.status(Status::Waiting);
        let request = self.agent.report.open_hook("PermissionRequest", &fields);
        let listening = request.as_ref().and_then(|request| request.try_clone().ok());
        std::thread::spawn(move || {
            let answer = listening.and_then(answer_of).unwrap_or(Value::Null);
            if answer["hookSpecificOutput"]["decision"]["behavior"].is_string() {
                let _ = answers.send(answer);
            }
        });
        let answer = answered.recv().unwrap_or(Value::Null);
        *self.agent.dialog.lock().unwrap() = None;
        // Whoever still holds the request learns that it is over.
        if let Some(request) = request {
            let _ = request.shutdown(std::net::Shutdown::Both);
        }
        self.agent.screen.dialog(None);
        self.agent.report.status(Status::Busy);
        answer
    }

    fn subagent(&mut self) {
        let about =
            json!({"tool_name": "Task", "tool_input": {"description": "look around"}, "tool_use_id": "s1"});
        self.agent.report.hook("PreToolUse", about.clone());
        let _ = self.tool("true", Some("sub-1"));
        self.agent.report.write(json!({
            "type": "assistant", "isSidechain": true,
            "message": {"role": "assistant", "content": [{"type": "text", "text": "The sub-agent is done.\n\n[SEMO:DONE]"}], "stop_reason": "end_turn"},
        }));
        self.agent.report.hook("SubagentStop", json!({"agent_id": "sub-1", "stop_hook_active": false, "last_assistant_message": "The sub-agent is done.\n\n[SEMO:DONE]"}));
        let mut done = about;
        done["tool_response"] = json!({"content": "looked around"});
        self.agent.report.hook("PostToolUse", done);
    }
}

fn permission_fields(command: &str) -> Value {
    json!({"tool_name": "Bash", "tool_input": {"command": command}, "permission_suggestions": []})
}

fn permission_rows(command: &str) -> Vec<String> {
    let command = format!("   {command}");
    let rows = [
        " Bash command",
        "",
        &command,
        "",
        " Do you want to proceed?",
        " ❯ 1. Yes",
        "   2. Yes, and don't ask again",
        "   3. No",
        "",
        " Esc to cancel · Tab to amend",
    ];
    rows.map(str::to_owned).to_vec()
}

fn is_allowed(answer: &Value) -> bool {
    answer["hookSpecificOutput"]["decision"]["behavior"] == "allow"
        || matches!(answer["key"].as_str(), Some("1" | "2"))
}

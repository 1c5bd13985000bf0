//! The built program `semo` as a process, for stories about its life: signals, kills, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::claude::{ClaudeHome, program as claude_program};
use crate::guard::EndsLeft;
use crate::port;
use crate::processes::{Process, naming};
use crate::stub::Stub;
use crate::wait::{LONG, wait_for};

/// How long a program that is told to end may take, before it is killed.
const END_WAIT: Duration = Duration::from_secs(20);

/// The program `semo` of this build.
pub fn semo() -> PathBuf {
    crate::processes::built("semo")
}

/// With which code it ended.
pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// What it printed.
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it said beside that.
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A place to run it in: folders and environment of its own.
pub struct Place {
    // Before the folders go: what still runs in them is ended, also when a story fails.
    guard: EndsLeft,
    /// Holds `config` and `data`.
    pub dir: tempfile::TempDir,
    home: ClaudeHome,
    env: Vec<(String, String)>,
}

impl Place {
    /// A place whose agents reach the model at `model_url`.
    pub fn new(model_url: &str) -> Place {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let home = ClaudeHome::new();
        let mut env = home.env(model_url);
        let folder = |name: &str| dir.path().join(name).display().to_string();
        env.push(("SEMO_CONFIG_DIR".into(), folder("config")));
        env.push(("SEMO_DATA_DIR".into(), folder("data")));
        env.push(("SEMO_CLAUDE".into(), claude_program().display().to_string()));
        // What a test that is killed leaves behind ends by itself, as soon as the settings allow.
        env.push(("SEMO_HOLDER_ALONE_HOURS".into(), "1".into()));
        // Never into the keychain of whoever runs the tests.
        env.push(("SEMO_TOKENS".into(), "file".into()));
        port::remember(&dir.path().join("data"));
        // Stories share a small machine; those about warm sessions switch them on.
        env.push(("SEMO_WARM_MAX".into(), "0".into()));
        Place {
            guard: EndsLeft::of(dir.path()),
            dir,
            home,
            env,
        }
    }

    /// Sets a variable for the programs that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The home of the agents.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(semo());
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs `semo` to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("no panic")
            .expect("semo runs")
    }

    /// The same with a standard output of the caller's; that of the result is empty then.
    pub async fn run_into(&self, args: &[&str], out: Stdio) -> Output {
        let mut command = self.command(args);
        command.stdout(out).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || command.spawn().and_then(Child::wait_with_output))
            .await
            .expect("no panic")
            .expect("semo runs")
    }

    /// Starts `semo` with `args` and a standard output of the caller's, and leaves it running.
    pub fn start(&self, args: &[&str], out: Stdio) -> Up {
        let child = self.command(args).stdout(out).spawn().expect("semo starts");
        Up {
            child,
            said: Value::Null,
        }
    }

    /// Starts `semo up` and waits until a window could connect.
    pub async fn up(&self) -> Up {
        self.up_by(self.command(&["up", "--json"])).await
    }

    /// Starts `semo up` in a process group of its own, as a shell does, and does not wait for anything.
    pub fn up_at_once(&self) -> Up {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(&["up", "--json"]);
        let output = std::fs::File::create(self.dir.path().join("up.out")).expect("a file for its output");
        let child = command
            .process_group(0)
            .stdout(output.try_clone().expect("the same file"))
            .stderr(output)
            .spawn()
            .expect("semo starts");
        Up {
            child,
            said: Value::Null,
        }
    }

    /// Starts `semo` with `args` and leaves it running; its standard output goes to the file that is returned.
    pub fn follow(&self, args: &[&str]) -> (Up, PathBuf) {
        let log = self.dir.path().join("follow.out");
        let out = std::fs::File::create(&log).expect("a file for its output");
        let child = self.command(args).stdout(out).spawn().expect("semo starts");
        let said = Value::Null;
        (Up { child, said }, log)
    }

    /// Starts `semo up` under a shell that first runs `prelude`.
    pub async fn up_after(&self, prelude: &str) -> Up {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("{prelude}; exec \"$0\" up --json")])
            .arg(semo());
        command
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        self.up_by(command).await
    }

    /// Kills it in the middle of whatever it does, as a crash would, and starts it again on the same folders.
    pub async fn killed_and_up(&self, up: Up) -> Up {
        up.signal("KILL");
        up.ended().await;
        self.up().await
    }

    /// Ends it with every session, as `semo down --now` does, and makes sure that nothing is left.
    pub async fn down(&self, up: Up) {
        let ended = self.run(&["down", "--now"]).await;
        assert!(ended.status.success(), "{}", err(&ended));
        assert_eq!(up.ended().await, Some(0));
        let left = self.guard.left();
        assert!(left.is_empty(), "semo has ended and left behind: {left:?}");
    }

    /// Sends the FE agent `prompt` and waits until it works on it; the command's id.
    pub async fn begin(&self, stub: &Stub, prompt: &str) -> String {
        let sent = self.run(&["send", "--agent", "FE", prompt, "--json"]).await;
        assert_eq!(code(&sent), Some(0), "{}", err(&sent));
        let sent: Value = serde_json::from_str(&out(&sent)).expect("JSON");
        stub.turn_where("the turn has begun", LONG, |request| {
            request.prompt().is_some_and(|said| said.contains(prompt))
        })
        .await;
        sent["command_id"].as_str().expect("an id").to_owned()
    }

    /// The files that hold sign-ins to projects.
    pub fn sign_ins(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.dir.path().join("data/sign-ins"));
        let files = folder.into_iter().flatten().flatten().map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .collect()
    }

    /// Holders of this place, each with an agent below it.
    pub fn holders(&self) -> Vec<Process> {
        naming(&self.dir.path().join("data/holders"))
    }

    async fn up_by(&self, mut command: Command) -> Up {
        let log = self.dir.path().join("up.out");
        let out = std::fs::File::create(&log).expect("a file for its output");
        let err = out.try_clone().expect("the same file");
        let mut child = command.stdout(out).stderr(err).spawn().expect("semo starts");
        let said = wait_for("semo up says where it is", LONG, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let ended = child.try_wait().expect("its state");
            assert!(
                ended.is_none() || text.contains("\"ui\""),
                "semo up ended: {text}"
            );
            async move {
                text.lines()
                    .find_map(|line| serde_json::from_str::<Value>(line).ok())
            }
        })
        .await;
        Up { child, said }
    }
}

/// A running `semo`.
pub struct Up {
    child: Child,
    /// What it printed: `ui`, `api`, `token`, `project`. Null when nobody waited for it.
    pub said: Value,
}

impl Up {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`INT`, `TERM`, `KILL`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Sends a signal to its whole process group, as a terminal does; only for one started by [`Place::up_at_once`].
    pub fn signal_group(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), "--", &format!("-{}", self.pid())])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for its end and returns the exit code.
    pub async fn ended(mut self) -> Option<i32> {
        wait_for("the end of semo", LONG, || {
            let ended = self.child.try_wait().expect("its state");
            async move { ended }
        })
        .await
        .code()
    }

    /// A command as windows see it, once it is over.
    pub async fn over(&self, id: &str) -> Value {
        wait_for("the command is over", LONG, || async {
            let state = self.state().await;
            let commands = state["commands"].as_array()?;
            let command = commands.iter().find(|one| one["id"] == id)?.clone();
            command["finished_at"].is_number().then_some(command)
        })
        .await
    }

    /// The state as windows see it.
    pub async fn state(&self) -> Value {
        self.try_state().await.expect("a state")
    }

    /// The same, or nothing where none is told: while the core switches to another office's server.
    pub async fn try_state(&self) -> Option<Value> {
        let answer = self.request(Method::GET, "state").send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// Calls the core as a window does: the status, and the answer.
    pub async fn call(&self, method: &str, params: Value) -> (u16, Value) {
        let request = self.request(Method::POST, &format!("rpc/{method}")).json(&params);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let builder = reqwest::Client::builder().no_proxy().build();
        let url = format!("{}/api/v1/{path}", self.said["api"].as_str().expect("an address"));
        builder
            .expect("an HTTP client")
            .request(method, url)
            .bearer_auth(self.said["token"].as_str().expect("a token"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // A story that failed in the middle leaves nothing behind; one that went well has ended it already.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill")
                .arg("-TERM")
                .arg(self.child.id().to_string())
                .status();
            let give_up = Instant::now() + END_WAIT;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(50));
            }
            // Does nothing to one that has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

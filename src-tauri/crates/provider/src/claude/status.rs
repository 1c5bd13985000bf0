//! The program's own status file, `<config>/sessions/<pid>.json`: undocumented, but the one sign that was right in
//! every case that was tried, a cancel included. Read as a watchdog beside the hooks, never instead of them.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

/// Largest status file that is read; a real one has about 400 bytes.
const STATUS_BYTES_MAX: u64 = 64 * 1024;
/// Ticks of the kernel's clock in a second: 100 wherever Linux shows them to programs.
const TICKS_PER_S: u64 = 100;
/// How far the times of a file and of a process may be apart, in milliseconds.
const CLOCK_SLACK_MS: i64 = 3_000;

/// What the program says it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Its prompt is free.
    Idle,
    /// Its prompt is free, and a shell command of the agent runs in the background.
    Background,
    /// It works.
    Busy,
    /// It waits for a person.
    Waiting,
    /// A word of a version we do not know.
    Unknown,
}

/// The parts of the file that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusFile {
    /// What it is doing.
    pub activity: Activity,
    /// Its session now; differs from the one it was started with after `/clear`.
    pub session_id: String,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// When the activity last changed, in milliseconds since 1970.
    pub changed_at_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    status: String,
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    waiting_for: Option<String>,
    #[serde(default)]
    status_updated_at: i64,
    #[serde(default)]
    proc_start: serde_json::Value,
    #[serde(default)]
    started_at: Option<i64>,
}

/// The status of the process `pid`, or nothing when the file is absent, half written, of another shape, or left behind
/// by an earlier process with that pid.
pub fn read_status(config_dir: &Path, pid: u32) -> Option<StatusFile> {
    let path = config_dir.join("sessions").join(format!("{pid}.json"));
    // Of a pipe the opening alone would wait for ever.
    if !std::fs::symlink_metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    let written_ms = file
        .metadata()
        .ok()
        .and_then(|about| ms_of(about.modified().ok()?));
    file.take(STATUS_BYTES_MAX).read_to_end(&mut text).ok()?;
    let (file, status) = parse(&text)?;
    // Where the system does not tell when a process began, the file is believed.
    let own = began(pid).is_none_or(|began| is_of(&file, written_ms, began));
    own.then_some(status)
}

/// When a process began.
#[derive(Debug, Clone, Copy)]
struct Began {
    /// In ticks since the system's start, as the program writes it into the file.
    ticks: u64,
    /// In milliseconds since 1970.
    at_ms: i64,
}

/// Whether a file is of the process that began then.
fn is_of(file: &File, written_ms: Option<i64>, began: Began) -> bool {
    let named = match &file.proc_start {
        serde_json::Value::String(text) => text.trim().parse::<u64>().ok(),
        other => other.as_u64(),
    };
    match (named, file.started_at.filter(|at| *at > 0).or(written_ms)) {
        (Some(ticks), _) => ticks == began.ticks,
        (None, Some(at_ms)) => at_ms.saturating_add(CLOCK_SLACK_MS) >= began.at_ms,
        (None, None) => true,
    }
}

/// From the kernel's list of processes; `None` where there is none.
fn began(pid: u32) -> Option<Began> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, brackets and blanks too.
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let ticks: u64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot_s: i64 = boot.trim().parse().ok()?;
    let since_ms = i64::try_from(ticks.saturating_mul(1000) / TICKS_PER_S).ok()?;
    let at_ms = boot_s.saturating_mul(1000).saturating_add(since_ms);
    Some(Began { ticks, at_ms })
}

fn ms_of(time: std::time::SystemTime) -> Option<i64> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn parse(text: &[u8]) -> Option<(File, StatusFile)> {
    let file: File = serde_json::from_slice(text).ok()?;
    let activity = match file.status.as_str() {
        "idle" => Activity::Idle,
        "shell" => Activity::Background,
        "busy" => Activity::Busy,
        "waiting" => Activity::Waiting,
        _ => Activity::Unknown,
    };
    let status = StatusFile {
        activity,
        session_id: file.session_id.clone(),
        waiting_for: file.waiting_for.clone(),
        changed_at_ms: file.status_updated_at,
    };
    Some((file, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_2_1_197_is_understood() {
        let text = br#"{"pid":23490,"sessionId":"ff196433","cwd":"/w","startedAt":1,"procStart":"166881","version":"2.1.197",
            "peerProtocol":1,"kind":"interactive","entrypoint":"cli","name":"FE worker","status":"waiting",
            "waitingFor":"permission prompt","updatedAt":5,"statusUpdatedAt":1795240009709}"#;
        let parse = |text: &[u8]| parse(text).map(|(_, status)| status);
        assert_eq!(
            parse(text),
            Some(StatusFile {
                activity: Activity::Waiting,
                session_id: "ff196433".into(),
                waiting_for: Some("permission prompt".into()),
                changed_at_ms: 1_795_240_009_709,
            })
        );
        assert_eq!(
            parse(br#"{"status":"shell"}"#).unwrap().activity,
            Activity::Background
        );
        assert_eq!(parse(&text[..40]), None, "half written");
        assert_eq!(
            parse(br#"{"status":"dreaming"}"#).unwrap().activity,
            Activity::Unknown
        );
    }

    /// A folder with the status file of this very process in it.
    fn folder(text: &str) -> (tempfile::TempDir, u32) {
        let (dir, pid) = (tempfile::tempdir().unwrap(), std::process::id());
        std::fs::create_dir(dir.path().join("sessions")).unwrap();
        std::fs::write(dir.path().join(format!("sessions/{pid}.json")), text).unwrap();
        (dir, pid)
    }

    #[test]
    fn a_file_that_an_earlier_process_with_this_pid_has_left_is_not_read() {
        let own = began(std::process::id()).unwrap();
        let file = |what: &str| folder(&format!(r#"{{"status":"busy",{what}"sessionId":"s"}}"#));
        for what in [
            format!(r#""procStart":"{}","#, own.ticks),
            format!(r#""procStart":"{}","startedAt":1,"#, own.ticks),
            format!(r#""startedAt":{},"#, own.at_ms + 400),
            String::new(),
        ] {
            let (dir, pid) = file(&what);
            assert!(read_status(dir.path(), pid).is_some(), "{what}");
        }
        for what in [
            format!(r#""procStart":"{}","#, own.ticks.wrapping_sub(1)),
            format!(r#""startedAt":{},"#, own.at_ms - 60_000),
        ] {
            let (dir, pid) = file(&what);
            assert_eq!(read_status(dir.path(), pid), None, "{what}");
        }
        let (dir, pid) = file("");
        let path = dir.path().join(format!("sessions/{pid}.json"));
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert_eq!(read_status(dir.path(), pid), None, "older than the process");
    }

    #[test]
    fn what_is_no_file_in_its_place_is_not_opened() {
        let (dir, pid) = folder("");
        let path = dir.path().join(format!("sessions/{pid}.json"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/stdin", &path).unwrap();
        assert_eq!(read_status(dir.path(), pid), None);
    }
}

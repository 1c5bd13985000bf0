//! The program's own status file, `<config>/sessions/<pid>.json`: undocumented, but the one sign that was right in
//! every case that was tried, a cancel included. Read as a watchdog beside the hooks, never instead of them.

use std::path::Path;

use serde::Deserialize;

/// Largest status file that is read; a real one has about 400 bytes.
const STATUS_BYTES_MAX: u64 = 64 * 1024;

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
}

/// The status of the process `pid`, or nothing when the file is absent, half written or of another shape.
pub fn read_status(config_dir: &Path, pid: u32) -> Option<StatusFile> {
    use std::io::Read;
    let path = config_dir.join("sessions").join(format!("{pid}.json"));
    let mut text = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(STATUS_BYTES_MAX)
        .read_to_end(&mut text)
        .ok()?;
    parse(&text)
}

fn parse(text: &[u8]) -> Option<StatusFile> {
    let file: File = serde_json::from_slice(text).ok()?;
    let activity = match file.status.as_str() {
        "idle" => Activity::Idle,
        "shell" => Activity::Background,
        "busy" => Activity::Busy,
        "waiting" => Activity::Waiting,
        _ => Activity::Unknown,
    };
    Some(StatusFile {
        activity,
        session_id: file.session_id,
        waiting_for: file.waiting_for,
        changed_at_ms: file.status_updated_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_2_1_197_is_understood() {
        let text = br#"{"pid":23490,"sessionId":"ff196433","cwd":"/w","startedAt":1,"procStart":"166881","version":"2.1.197",
            "peerProtocol":1,"kind":"interactive","entrypoint":"cli","name":"FE worker","status":"waiting",
            "waitingFor":"permission prompt","updatedAt":5,"statusUpdatedAt":1795240009709}"#;
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
}

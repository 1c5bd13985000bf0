//! What is fed: plain log lines, coloured ones, Korean and Chinese text, and what real agents printed.

use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::Value;

/// Bytes of each, repeated from its source.
const BYTES: usize = 16 * 1024 * 1024;

/// Name and bytes.
pub type Corpus = (&'static str, Vec<u8>);

pub fn all() -> Vec<Corpus> {
    vec![
        ("ascii", ascii()),
        ("sgr", sgr()),
        ("cjk", cjk()),
        ("cc", recorded()),
    ]
}

fn repeated(source: Vec<u8>) -> Vec<u8> {
    source.iter().copied().cycle().take(BYTES).collect()
}

pub fn ascii() -> Vec<u8> {
    let line = |n: usize| {
        format!(
            "2026-11-21T08:{:02}:{:02} INFO worker {n}: request took {} ms, all well so far\r\n",
            n / 60 % 60,
            n % 60,
            n % 977
        )
    };
    repeated((0..5_000).flat_map(|n| line(n).into_bytes()).collect())
}

fn sgr() -> Vec<u8> {
    let words = (0..20_000).map(|n| format!("\x1b[38;5;{}m\x1b[{}mword{n}\x1b[m ", n % 256, n % 8));
    let lines = words
        .enumerate()
        .map(|(n, word)| if n % 12 == 11 { format!("{word}\r\n") } else { word });
    repeated(lines.flat_map(String::into_bytes).collect())
}

fn cjk() -> Vec<u8> {
    let line = |n: usize| {
        format!("작업 {n}: 파일을 모두 읽었습니다 — 漢字とかな、완료되었습니다 🎉 다음 단계로\r\n")
    };
    repeated((0..5_000).flat_map(|n| line(n).into_bytes()).collect())
}

/// The output of the recorded sessions, one behind the other.
fn recorded() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut output = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "jsonl"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        let events = text
            .lines()
            .skip(1)
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for event in events.filter(|event| event["k"] == "o") {
            output.extend(
                base64::engine::general_purpose::STANDARD
                    .decode(event["b"].as_str().unwrap())
                    .unwrap(),
            );
        }
    }
    repeated(output)
}

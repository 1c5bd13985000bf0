//! The same things done by node-pty and @xterm/headless, in a node process of its own: `peer.mjs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::corpora::Corpus;

/// Where `scripts/bench.sh` installs the packages, told by this variable.
const FOLDER: &str = "SEMO_BENCH_NODE";

pub struct Node {
    folder: PathBuf,
    corpora: PathBuf,
}

impl Node {
    /// `None` when node or one of the packages is not there.
    pub fn find(corpora: &[Corpus], into: &Path) -> Option<Node> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        for package in ["@xterm/headless", "node-pty"] {
            if !folder.join("node_modules").join(package).is_dir() {
                return None;
            }
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/ratios/peer.mjs");
        std::fs::copy(source, folder.join("peer.mjs")).ok()?;
        for (name, bytes) in corpora {
            std::fs::write(into.join(name), bytes).ok()?;
        }
        let node = Node {
            folder,
            corpora: into.to_owned(),
        };
        node.try_ask(&["hello"]).map(|_| node)
    }

    pub fn ask(&self, args: &[&str]) -> Value {
        self.try_ask(args)
            .unwrap_or_else(|| panic!("node has no answer to {args:?}"))
    }

    fn try_ask(&self, args: &[&str]) -> Option<Value> {
        let output = Command::new("node")
            .arg("peer.mjs")
            .args(args)
            .current_dir(&self.folder)
            .env("CORPORA", &self.corpora)
            .env("PROBE", std::env::current_exe().ok()?)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        if answer.is_none() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        answer
    }
}

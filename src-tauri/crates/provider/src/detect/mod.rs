//! What a screen means, told by data: versioned manifests, one per program and range of versions, bundled here and
//! extended by the owner's own files and an office's patterns.
//!
//! For readiness, dialogs and menus: how a turn ends is never decided here. Manifests look at painted rows only,
//! never at raw bytes. `session` reads screens with it, `client` loads and reloads it.

mod detector;
mod fault;
mod frame;
mod input_box;
mod manifest;
mod matcher;
mod meaning;
mod patterns;
mod range;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use detector::Detector;
pub use fault::DetectorFault;
pub use meaning::{Dialog, InputBox, MATCHED_CHARS_MAX, Reading, ScreenMeaning};
pub use patterns::{OfficePatterns, PATTERNS_MAX, PatternHit};

use crate::version::Version;
use manifest::{MANIFEST_BYTES_MAX, Manifest, Parsed};

/// The manifests that come with this program, by file.
const BUNDLED: &[(&str, &str)] = &[
    ("claude.toml", include_str!("../../detectors/claude.toml")),
    ("codex.toml", include_str!("../../detectors/codex.toml")),
    ("gemini.toml", include_str!("../../detectors/gemini.toml")),
    ("opencode.toml", include_str!("../../detectors/opencode.toml")),
];
/// Files of an owner's folder that are read, at most.
pub const FOLDER_FILES_MAX: usize = 64;

/// All manifests there are, the owner's before the bundled ones. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Detectors {
    bundled: Arc<Vec<Arc<Manifest>>>,
    own: Arc<Vec<OwnFile>>,
    patterns: OfficePatterns,
}

/// What the newest usable version of an owner's file said.
#[derive(Debug, Clone)]
struct OwnFile {
    path: PathBuf,
    manifest: Option<Arc<Manifest>>,
    patterns: OfficePatterns,
}

impl Detectors {
    /// Those that come with this program.
    pub fn bundled() -> Detectors {
        let read = |(file, text): &(&str, &str)| match manifest::parse(text, Some(Path::new(file))) {
            Ok(parsed) => parsed.manifest.map(Arc::new),
            // Tests read every one of them; a fault here is a fault of the build.
            Err(faults) => {
                tracing::error!(?faults, "a bundled manifest cannot be used");
                None
            }
        };
        Detectors {
            bundled: Arc::new(BUNDLED.iter().filter_map(read).collect()),
            own: Arc::default(),
            patterns: OfficePatterns::default(),
        }
    }

    /// The bundled ones with the manifests (`*.toml`) of a folder before them; a folder that is not there holds none.
    /// A file that cannot be used is told, and what these detectors had from it stays in use.
    pub fn with_folder(&self, folder: &Path) -> (Detectors, Vec<DetectorFault>) {
        let mut faults = Vec::new();
        let files = files_of(folder, &mut faults);
        let mut own: Vec<OwnFile> = Vec::new();
        for path in files {
            match read_file(&path) {
                Ok(parsed) => own.push(OwnFile {
                    path,
                    manifest: parsed.manifest.map(Arc::new),
                    patterns: parsed.patterns,
                }),
                Err(mut wrong) => {
                    own.extend(self.own.iter().find(|file| file.path == path).cloned());
                    faults.append(&mut wrong);
                }
            }
        }
        let none = OfficePatterns::default();
        let patterns = own.iter().fold(none, |all, file| all.with(&file.patterns));
        let detectors = Detectors {
            bundled: self.bundled.clone(),
            own: Arc::new(own),
            patterns,
        };
        (detectors, faults)
    }

    /// The patterns that the owner's files add.
    pub fn patterns(&self) -> &OfficePatterns {
        &self.patterns
    }

    /// The manifest for a program: the owner's before the bundled one, with the owner's extensions on top. A version
    /// that none is made for, or one that is not known, gets the newest of its program, which then says that it is a
    /// guess ([`Detector::is_guess`]). A program without any is never clear.
    pub fn for_program(&self, provider: &str, version: Option<&Version>) -> Arc<Detector> {
        // The test double draws what Claude Code draws.
        let provider = if provider == crate::scripted::PROVIDER {
            crate::claude::PROGRAM
        } else {
            provider
        };
        let own = self.own.iter().filter_map(|file| file.manifest.as_ref());
        let own = own.filter(|its| its.provider == provider);
        let bundled = self.bundled.iter().filter(|its| its.provider == provider);
        let (extensions, replacements): (Vec<_>, Vec<_>) = own.partition(|its| its.extends);
        let fits = |its: &&Arc<Manifest>| version.is_some_and(|version| its.programs.contains(*version));
        let fitting = newest(replacements.iter().copied().filter(fits))
            .or_else(|| newest(bundled.clone().filter(fits)));
        let any = || newest(replacements.iter().copied()).or_else(|| newest(bundled.clone()));
        let (base, guess) = match (fitting, version) {
            (Some(base), _) => (Some(base), None),
            (None, Some(version)) => (any(), Some(format!("a guess: not made for {version}"))),
            (None, None) => (
                any(),
                Some("a guess: the program's version is not known".to_owned()),
            ),
        };
        let wanted = extensions
            .into_iter()
            .filter(|its| version.is_none() || fits(its));
        // The file that comes first by name is asked first.
        let stacked = wanted.rev().fold(base.cloned(), |below, its| {
            Some(below.map_or_else(|| its.clone(), |below| Arc::new(its.on_top_of(&below))))
        });
        Arc::new(match stacked {
            Some(manifest) => Detector::of(manifest, guess.as_deref()),
            None => Detector::blind(provider),
        })
    }
}

impl Manifest {
    fn on_top_of(&self, below: &Manifest) -> Manifest {
        Manifest {
            provider: self.provider.clone(),
            version: below.version.clone(),
            version_text: format!("{} over {}", self.version_text, below.version_text),
            programs: below.programs.clone(),
            extends: false,
            boxes: [self.boxes.as_slice(), &below.boxes].concat(),
            rules: [self.rules.as_slice(), &below.rules].concat(),
            rule_sign: below.rule_sign.clone(),
        }
    }
}

/// The one with the highest version; the first of equals.
fn newest<'a>(manifests: impl Iterator<Item = &'a Arc<Manifest>>) -> Option<&'a Arc<Manifest>> {
    manifests.fold(None, |best: Option<&Arc<Manifest>>, its| match best {
        Some(best) if its.version <= best.version => Some(best),
        _ => Some(its),
    })
}

/// The manifests of a folder, by name, so that their order does not depend on the disk.
fn files_of(folder: &Path, faults: &mut Vec<DetectorFault>) -> Vec<PathBuf> {
    let mut fault = |what: String| {
        faults.push(DetectorFault {
            file: Some(folder.to_owned()),
            line: None,
            key: String::new(),
            what,
        });
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            fault(format!("the folder cannot be read: {error}"));
            return Vec::new();
        }
    };
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "toml");
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_manifest)
        .collect();
    files.sort();
    if files.len() > FOLDER_FILES_MAX {
        fault(format!(
            "it holds {} manifests; the first {FOLDER_FILES_MAX} are read",
            files.len()
        ));
        files.truncate(FOLDER_FILES_MAX);
    }
    files
}

fn read_file(path: &Path) -> Result<Parsed, Vec<DetectorFault>> {
    let fault = |what: String| {
        vec![DetectorFault {
            file: Some(path.to_owned()),
            line: None,
            key: String::new(),
            what,
        }]
    };
    // Only a plain file ends by itself.
    if !path.metadata().is_ok_and(|its| its.is_file()) {
        return Err(fault("it is no file that can be read".to_owned()));
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| fault(format!("the file cannot be read: {error}")))?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(fault(format!(
            "the file is longer than {MANIFEST_BYTES_MAX} bytes"
        )));
    }
    manifest::parse(&text, Some(path))
}

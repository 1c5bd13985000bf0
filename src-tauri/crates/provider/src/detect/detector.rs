//! One manifest at work: it finds the input box, then asks its rules in their order; the first that holds decides.

use std::sync::Arc;

use terminal::Screen;

use super::frame::{Frame, Hit};
use super::manifest::{Manifest, Means, Rule};
use super::matcher::Condition;
use super::meaning::{InputBox, MATCHED_CHARS_MAX, Reading, ScreenMeaning};

/// One manifest, ready to read screens.
#[derive(Debug)]
pub struct Detector {
    manifest: Option<Arc<Manifest>>,
    name: String,
    guess: bool,
    none: Arc<str>,
}

impl Detector {
    pub(super) fn of(manifest: Arc<Manifest>, guess: Option<&str>) -> Detector {
        let name = format!("{} {}", manifest.provider, manifest.version_text);
        Detector {
            none: Arc::from(format!("{}/none", manifest.provider)),
            name: guess.map_or(name.clone(), |why| format!("{name} ({why})")),
            guess: guess.is_some(),
            manifest: Some(manifest),
        }
    }

    /// For a program that no manifest is made for: every screen is unclear.
    pub(super) fn blind(provider: &str) -> Detector {
        Detector {
            manifest: None,
            name: format!("{provider} (no manifest)"),
            guess: true,
            none: Arc::from(format!("{provider}/none")),
        }
    }

    /// Reads a screen.
    pub fn read(&self, screen: &Screen) -> Reading {
        let decided = self.manifest.as_ref().and_then(|manifest| {
            let mut frame = Frame::new(screen, &manifest.rule_sign);
            manifest.locate(&mut frame);
            let decide = |rule: &Rule| Some((rule.name.clone(), rule.hit(&frame)?, rule.means));
            let (rule, hit, means) = manifest.rules.iter().find_map(decide)?;
            Some(manifest.reading(&frame, rule, hit, means))
        });
        decided.unwrap_or_else(|| Reading {
            meaning: ScreenMeaning::Unclear,
            rule: self.none.clone(),
            matched: String::new(),
            row: None,
        })
    }

    /// Program and version of the manifest, such as `claude 2026.11.21.1`, and behind it why it is a guess where it
    /// is one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the program's version is not known or outside of what the manifest was made for.
    pub fn is_guess(&self) -> bool {
        self.guess
    }

    /// The names of its rules, in the order in which they are asked.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<str>> {
        self.manifest
            .iter()
            .flat_map(|manifest| manifest.rules.iter().map(|rule| &rule.name))
    }
}

impl Manifest {
    /// Finds the input box. The conditions of a box may look at the box itself, so it stands there while they are
    /// asked.
    fn locate(&self, frame: &mut Frame<'_>) {
        for (at, sign) in self.boxes.iter().enumerate() {
            frame.located = sign.locate(frame, at);
            if frame.located.is_none() {
                continue;
            }
            let holds = |condition: &Condition| condition.find(frame).is_some();
            let wanted = sign.when.is_empty() || sign.when.iter().any(holds);
            if wanted && !sign.unless.iter().any(holds) {
                return;
            }
            frame.located = None;
        }
    }

    fn reading(&self, frame: &Frame<'_>, rule: Arc<str>, hit: Hit, means: Means) -> Reading {
        let rows = frame.rows();
        let shown = hit.row.map_or(frame.screen.title.as_str(), |row| {
            rows.get(row).map_or("", String::as_str)
        });
        let matched: String = shown.trim().chars().take(MATCHED_CHARS_MAX).collect();
        let meaning = match means {
            Means::Unclear => ScreenMeaning::Unclear,
            Means::Ready => ScreenMeaning::Ready(self.input_box(frame)),
            Means::Busy => ScreenMeaning::Busy(self.input_box(frame)),
            Means::Dialog(dialog) => ScreenMeaning::Dialog(dialog),
            Means::NotSignedIn => ScreenMeaning::NotSignedIn,
            Means::Fault => ScreenMeaning::Fault(matched.clone()),
        };
        Reading {
            meaning,
            rule,
            matched,
            row: hit.row.and_then(|row| u16::try_from(row).ok()),
        }
    }

    fn input_box(&self, frame: &Frame<'_>) -> InputBox {
        let found = frame.located.as_ref();
        let found = found.and_then(|found| Some((self.boxes.get(found.sign)?, found)));
        found.map_or_else(
            // A turn may run while the box is hidden. What cannot be seen is not known to be empty.
            || InputBox {
                text: String::new(),
                empty: false,
            },
            |(sign, found)| sign.read(frame, found),
        )
    }
}

impl Rule {
    /// Where it holds; none where it does not.
    fn hit(&self, frame: &Frame<'_>) -> Option<Hit> {
        // Ready means that a prompt may be typed: nothing may say so where there is nothing to type into.
        if self.means == Means::Ready && frame.located.is_none() {
            return None;
        }
        let mut first = None;
        for condition in &self.all {
            let hit = condition.find(frame)?;
            first.get_or_insert(hit);
        }
        if !self.any.is_empty() {
            let hit = self.any.iter().find_map(|condition| condition.find(frame))?;
            // Of several texts the one that made the difference is the one worth telling.
            first = Some(hit);
        }
        let refuted = self.not.iter().any(|condition| condition.find(frame).is_some());
        first.filter(|_| !refuted)
    }
}

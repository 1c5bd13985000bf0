//! Manifests as they are written (TOML), checked and made ready. Every fault is told with its line and what would be
//! right; a manifest with a fault is not used at all, so that nobody works with half of what they wrote.
//!
//! The format is explained in the first bundled manifest, `detectors/claude.toml`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem::Finder;
use serde::Deserialize;
use toml::Spanned;

use super::fault::DetectorFault;
use super::frame::{REGION_NAMES, Region, RuleSign};
use super::input_box::{BoxSign, Shape};
use super::matcher::{Condition, Matcher, expression, needle};
use super::meaning::Dialog;
use super::patterns::OfficePatterns;
use super::range::VersionRange;

/// The format this program reads.
const FORMAT: i64 = 1;
/// Longest manifest, in bytes: ten times the bundled ones.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// Rules of a manifest, at most; each is tried on every screen.
const RULES_MAX: usize = 200;
/// Conditions of a rule, at most.
const CONDITIONS_MAX: usize = 40;
/// Ways to draw an input box, at most.
const BOXES_MAX: usize = 8;
/// Footer rows below an input box where a manifest does not say.
const FOOTER_ROWS: usize = 6;

/// A manifest, ready to read screens.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) provider: String,
    pub(super) version: Vec<u32>,
    pub(super) version_text: String,
    pub(super) programs: VersionRange,
    /// Its rules go before those of another manifest of the same program.
    pub(super) extends: bool,
    pub(super) boxes: Vec<BoxSign>,
    pub(super) rules: Vec<Rule>,
    /// What draws a rule across the screen, for `below_rule`.
    pub(super) rule_sign: RuleSign,
}

/// One rule, ready.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// `<provider>/<id>`.
    pub(super) name: Arc<str>,
    pub(super) means: Means,
    pub(super) all: Vec<Condition>,
    pub(super) any: Vec<Condition>,
    pub(super) not: Vec<Condition>,
}

/// What a rule concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    Unclear,
    Ready,
    Busy,
    Dialog(Dialog),
    NotSignedIn,
    Fault,
}

/// Every meaning by its name.
const MEANINGS: &[(&str, Means)] = &[
    ("unclear", Means::Unclear),
    ("ready", Means::Ready),
    ("busy", Means::Busy),
    ("dialog trust", Means::Dialog(Dialog::Trust)),
    ("dialog key", Means::Dialog(Dialog::ApiKey)),
    ("dialog bypass", Means::Dialog(Dialog::Bypass)),
    ("dialog permission", Means::Dialog(Dialog::Permission)),
    ("dialog question", Means::Dialog(Dialog::Question)),
    ("dialog limit", Means::Dialog(Dialog::Limit)),
    ("menu", Means::Dialog(Dialog::Other)),
    ("not signed in", Means::NotSignedIn),
    ("fault", Means::Fault),
];

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) manifest: Option<Manifest>,
    pub(super) patterns: OfficePatterns,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    format: Spanned<i64>,
    provider: Option<Spanned<String>>,
    version: Option<Spanned<String>>,
    programs: Option<Spanned<String>>,
    #[serde(default)]
    extends: bool,
    #[serde(default, rename = "box")]
    boxes: Vec<Spanned<BoxText>>,
    #[serde(default, rename = "rule")]
    rules: Vec<Spanned<RuleText>>,
    patterns: Option<Spanned<PatternsText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoxText {
    shape: Spanned<String>,
    #[serde(default)]
    prompts: Vec<String>,
    rule: Option<String>,
    rule_cells_min: Option<usize>,
    label_rows: Option<usize>,
    footer_rows_max: Option<usize>,
    #[serde(default)]
    placeholders: Vec<String>,
    #[serde(default)]
    empty: Vec<Spanned<ConditionText>>,
    #[serde(default)]
    when: Vec<Spanned<ConditionText>>,
    #[serde(default)]
    unless: Vec<Spanned<ConditionText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    id: Spanned<String>,
    means: Spanned<String>,
    #[serde(rename = "in")]
    region: Option<Spanned<String>>,
    #[serde(default)]
    all: Vec<Spanned<ConditionText>>,
    #[serde(default)]
    any: Vec<Spanned<ConditionText>>,
    #[serde(default)]
    not: Vec<Spanned<ConditionText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText {
    #[serde(rename = "in")]
    region: Option<String>,
    contains: Option<String>,
    starts: Option<String>,
    row: Option<String>,
    matches: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternsText {
    #[serde(default)]
    completion: Vec<Spanned<String>>,
    #[serde(default)]
    errors: Vec<Spanned<String>>,
}

/// Reads a manifest. `file` is what faults call it.
pub(super) fn parse(text: &str, file: Option<&Path>) -> Result<Parsed, Vec<DetectorFault>> {
    let mut check = Check {
        text,
        file,
        faults: Vec::new(),
    };
    let read = match toml::from_str::<FileText>(text) {
        Ok(read) => read,
        Err(error) => {
            check.fault(error.span(), "", error.message().trim().to_owned());
            return Err(check.faults);
        }
    };
    let parsed = check.file(read);
    if check.faults.is_empty() {
        Ok(parsed)
    } else {
        Err(check.faults)
    }
}

/// The text under check and what is wrong with it so far.
struct Check<'a> {
    text: &'a str,
    file: Option<&'a Path>,
    faults: Vec<DetectorFault>,
}

impl Check<'_> {
    fn fault(&mut self, span: Option<Range<usize>>, key: &str, what: String) {
        let before = span.and_then(|span| self.text.get(..span.start));
        self.faults.push(DetectorFault {
            file: self.file.map(Path::to_owned),
            line: before.map(|before| before.matches('\n').count() + 1),
            key: key.to_owned(),
            what,
        });
    }

    fn file(&mut self, read: FileText) -> Parsed {
        if *read.format.get_ref() != FORMAT {
            let what = format!("this program reads format {FORMAT}");
            self.fault(Some(read.format.span()), "format", what);
        }
        let patterns = read
            .patterns
            .as_ref()
            .map(|patterns| self.patterns(patterns.get_ref()));
        let only_patterns = read.provider.is_none() && read.rules.is_empty() && read.boxes.is_empty();
        let manifest = if only_patterns && patterns.is_some() {
            None
        } else {
            self.manifest(read)
        };
        Parsed {
            manifest,
            patterns: patterns.unwrap_or_default(),
        }
    }

    fn manifest(&mut self, read: FileText) -> Option<Manifest> {
        let missing = "it is missing; a manifest has provider, version and programs";
        let mut wanted = |name: &str, value: Option<Spanned<String>>| {
            if value.is_none() {
                self.fault(None, name, missing.to_owned());
            }
            value
        };
        let provider = wanted("provider", read.provider);
        let version = wanted("version", read.version);
        let programs = wanted("programs", read.programs);
        let (provider, version_text, programs_text) = (provider?, version?, programs?);
        let provider_name = provider.get_ref().clone();
        if !is_name(&provider_name) {
            let what =
                format!("`{provider_name}` is no name of a program; take small letters, digits and `-`");
            self.fault(Some(provider.span()), "provider", what);
        }
        let version = parse_numbers(version_text.get_ref());
        if version.is_none() {
            let what = "four numbers are wanted, such as \"2026.11.21.1\"".to_owned();
            self.fault(Some(version_text.span()), "version", what);
        }
        let programs = VersionRange::parse(programs_text.get_ref());
        if let Err(what) = &programs {
            self.fault(Some(programs_text.span()), "programs", what.clone());
        }
        self.limit("box", read.boxes.len(), BOXES_MAX);
        self.limit("rule", read.rules.len(), RULES_MAX);
        if read.rules.is_empty() {
            self.fault(
                None,
                "rule",
                "there is none; add at least one [[rule]]".to_owned(),
            );
        }
        let boxes: Vec<BoxSign> = read
            .boxes
            .iter()
            .filter_map(|text| self.input_box(text))
            .collect();
        let mut rules: Vec<Rule> = Vec::new();
        for text in &read.rules {
            let rule = self.rule(text, &provider_name);
            if rules.iter().any(|other| other.name == rule.name) {
                let id = &text.get_ref().id;
                self.fault(
                    Some(id.span()),
                    &format!("rule \"{}\"", id.get_ref()),
                    "another rule has this id".to_owned(),
                );
            }
            rules.push(rule);
        }
        let sign = boxes.iter().find_map(|sign| match &sign.shape {
            Shape::BetweenRules(rule) => Some(rule.clone()),
            Shape::PromptRow | Shape::Bar { .. } | Shape::CursorRow => None,
        });
        Some(Manifest {
            provider: provider_name,
            version: version?,
            version_text: version_text.into_inner(),
            programs: programs.ok()?,
            extends: read.extends,
            boxes,
            rules,
            rule_sign: sign.unwrap_or_else(RuleSign::of_any_terminal),
        })
    }

    fn limit(&mut self, key: &str, count: usize, max: usize) {
        if count > max {
            self.fault(None, key, format!("there are {count}; at most {max} are allowed"));
        }
    }

    fn input_box(&mut self, text: &Spanned<BoxText>) -> Option<BoxSign> {
        let read = text.get_ref();
        let shape = self.shape(text)?;
        if read.prompts.is_empty() && !matches!(shape, Shape::CursorRow) {
            let what = "`prompts` is missing: what the first row of the box begins with".to_owned();
            self.fault(Some(text.span()), "box", what);
        }
        if read.prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            self.fault(
                Some(text.span()),
                "box",
                "a prompt must show something".to_owned(),
            );
        }
        let conditions = |check: &mut Self, texts: &[Spanned<ConditionText>]| {
            let each = texts.iter().map(|text| check.condition(text, None, "box"));
            each.collect::<Vec<_>>()
                .into_iter()
                .flatten()
                .collect::<Vec<Condition>>()
        };
        Some(BoxSign {
            shape,
            prompts: read.prompts.clone(),
            footer_rows_max: read.footer_rows_max.unwrap_or(FOOTER_ROWS),
            placeholders: read.placeholders.clone(),
            empty: conditions(self, &read.empty),
            when: conditions(self, &read.when),
            unless: conditions(self, &read.unless),
        })
    }

    fn shape(&mut self, text: &Spanned<BoxText>) -> Option<Shape> {
        let read = text.get_ref();
        match read.shape.get_ref().as_str() {
            "between_rules" => match (&read.rule, read.rule_cells_min) {
                (Some(glyphs), Some(cells_min)) if !glyphs.is_empty() && cells_min > 0 => {
                    Some(Shape::BetweenRules(RuleSign {
                        glyphs: glyphs.chars().collect(),
                        cells_min,
                    }))
                }
                _ => {
                    let what = "a box between rules says what draws a rule (`rule`) and how many cells of it make one (`rule_cells_min`)";
                    self.fault(Some(text.span()), "box", what.to_owned());
                    None
                }
            },
            "prompt_row" => Some(Shape::PromptRow),
            "bar" => Some(Shape::Bar {
                label_rows: read.label_rows.unwrap_or(0),
            }),
            "cursor_row" => Some(Shape::CursorRow),
            other => {
                let what =
                    format!("`{other}` is no shape; there are between_rules, prompt_row, bar and cursor_row");
                self.fault(Some(read.shape.span()), "box", what);
                None
            }
        }
    }

    fn rule(&mut self, text: &Spanned<RuleText>, provider: &str) -> Rule {
        let read = text.get_ref();
        let id = read.id.get_ref();
        let key = format!("rule \"{id}\"");
        if !is_name(id) {
            let what = format!("`{id}` is no id of a rule; take small letters, digits and `-`");
            self.fault(Some(read.id.span()), &key, what);
        }
        let wanted = read.means.get_ref();
        let means = MEANINGS.iter().find(|(name, _)| name == wanted);
        if means.is_none() {
            let names: Vec<&str> = MEANINGS.iter().map(|(name, _)| *name).collect();
            let what = format!("`{wanted}` is no meaning; there are: {}", names.join(", "));
            self.fault(Some(read.means.span()), &key, what);
        }
        let region = read.region.as_ref();
        let region = region.and_then(|region| self.region(region.get_ref(), Some(region.span()), &key));
        let mut conditions = |texts: &[Spanned<ConditionText>]| -> Vec<Condition> {
            let each = texts.iter().map(|text| self.condition(text, region, &key));
            each.collect::<Vec<_>>().into_iter().flatten().collect()
        };
        let (mut all, any, not) = (
            conditions(&read.all),
            conditions(&read.any),
            conditions(&read.not),
        );
        self.limit(&key, all.len() + any.len() + not.len(), CONDITIONS_MAX);
        if read.all.is_empty() && read.any.is_empty() {
            match region.filter(|region| region.needs_box()) {
                // The box itself is what it looks for.
                Some(region) => all.push(Condition {
                    region,
                    matcher: Matcher::Exists,
                }),
                None => {
                    let what =
                        "it matches every screen: add `any` or `all`, or look `in` box or footer".to_owned();
                    self.fault(Some(text.span()), &key, what);
                }
            }
        }
        Rule {
            name: Arc::from(format!("{provider}/{id}")),
            means: means.map_or(Means::Unclear, |(_, means)| *means),
            all,
            any,
            not,
        }
    }

    fn region(&mut self, name: &str, span: Option<Range<usize>>, key: &str) -> Option<Region> {
        let region = Region::parse(name);
        if region.is_none() {
            self.fault(
                span,
                key,
                format!("`{name}` is no part of a screen; there are: {REGION_NAMES}"),
            );
        }
        region
    }

    fn condition(
        &mut self,
        text: &Spanned<ConditionText>,
        region: Option<Region>,
        key: &str,
    ) -> Option<Condition> {
        let read = text.get_ref();
        let region = match &read.region {
            Some(name) => self.region(name, Some(text.span()), key)?,
            None if region.is_some() => region?,
            None => {
                let what = format!("it does not say where to look: add `in`, one of: {REGION_NAMES}");
                self.fault(Some(text.span()), key, what);
                return None;
            }
        };
        let matcher = match (&read.contains, &read.starts, &read.row, &read.matches) {
            (Some(text), None, None, None) => {
                needle(text).map(|needle| Matcher::Contains(Box::new(Finder::new(&needle).into_owned())))
            }
            (None, Some(text), None, None) => needle(text).map(Matcher::Starts),
            (None, None, Some(text), None) => needle(text).map(Matcher::Row),
            (None, None, None, Some(text)) => expression(text).map(Matcher::Matches),
            (None, None, None, None) if region.needs_box() => Ok(Matcher::Exists),
            _ => Err("exactly one of contains, starts, row and matches is wanted".to_owned()),
        };
        match matcher {
            Ok(matcher) => Some(Condition { region, matcher }),
            Err(what) => {
                self.fault(Some(text.span()), key, what);
                None
            }
        }
    }

    fn patterns(&mut self, read: &PatternsText) -> OfficePatterns {
        let mut patterns = OfficePatterns::default();
        let kinds = [("completion", &read.completion), ("errors", &read.errors)];
        for (kind, texts) in kinds {
            for (at, text) in texts.iter().enumerate() {
                let added = match kind {
                    "completion" => patterns.add_completion(text.get_ref()),
                    _ => patterns.add_error(text.get_ref()),
                };
                if let Err(what) = added {
                    self.fault(Some(text.span()), &format!("patterns.{kind}[{at}]"), what);
                }
            }
        }
        patterns
    }
}

impl RuleSign {
    /// For manifests whose box has no rules: `below_rule` still means something.
    fn of_any_terminal() -> RuleSign {
        RuleSign {
            glyphs: vec!['─', '━', '═'],
            cells_min: 8,
        }
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=64).contains(&text.len()) && text.chars().all(plain)
}

fn parse_numbers(text: &str) -> Option<Vec<u32>> {
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    numbers.filter(|numbers| numbers.len() == 4)
}

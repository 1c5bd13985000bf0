//! A screen as the rules see it: rows, the parts they are looked up in, and what a rule found there.

use std::cell::RefCell;
use std::ops::Range;

use memchr::memmem::Finder;
use terminal::Screen;

use super::input_box::Located;

/// A part of a screen that a rule looks at. All but the title are runs of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    /// All rows.
    Screen,
    /// All rows, but only where no input box was found.
    ScreenWithoutBox,
    /// Where no input box was found: the rows below the lowest rule that has anything below it; all rows where there
    /// is no rule.
    BelowRule,
    /// The rows of the input box.
    Box,
    /// The rows below the input box.
    Footer,
    /// So many rows right above the input box, blank ones too.
    AboveBox(usize),
    /// The last rows that are not blank, so many of them.
    LastRows(usize),
    /// The first rows that are not blank, so many of them.
    FirstRows(usize),
    /// The window's title.
    Title,
}

/// Names of the regions, for people who write manifests.
pub(super) const REGION_NAMES: &str =
    "screen, screen_without_box, below_rule, box, footer, above_box(n), last_rows(n), first_rows(n), title";

impl Region {
    pub(super) fn parse(text: &str) -> Option<Region> {
        let counted = [
            ("above_box(", Region::AboveBox as fn(usize) -> Region),
            ("last_rows(", Region::LastRows),
            ("first_rows(", Region::FirstRows),
        ];
        for (name, region) in counted {
            if let Some(rest) = text.strip_prefix(name) {
                let number: usize = rest.strip_suffix(')')?.trim().parse().ok()?;
                return (1..=ROWS_COUNTED_MAX).contains(&number).then(|| region(number));
            }
        }
        Some(match text {
            "screen" => Region::Screen,
            "screen_without_box" => Region::ScreenWithoutBox,
            "below_rule" => Region::BelowRule,
            "box" => Region::Box,
            "footer" => Region::Footer,
            "title" => Region::Title,
            _ => return None,
        })
    }

    /// Whether it is there only when the input box is.
    pub(super) fn needs_box(self) -> bool {
        matches!(self, Region::Box | Region::Footer | Region::AboveBox(_))
    }
}

/// Largest number of rows that a region counts.
const ROWS_COUNTED_MAX: usize = 100;

/// What draws a rule across the screen.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleSign {
    /// The characters it may be drawn with.
    pub(super) glyphs: Vec<char>,
    /// How many of them a row begins with, at least.
    pub(super) cells_min: usize,
}

impl RuleSign {
    pub(super) fn is_rule(&self, row: &str) -> bool {
        let mut cells = 0;
        for c in row.chars() {
            if !self.glyphs.contains(&c) {
                break;
            }
            cells += 1;
            if cells >= self.cells_min {
                return true;
            }
        }
        false
    }
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// The row; none for the title.
    pub(super) row: Option<usize>,
}

/// A screen while it is read.
pub(super) struct Frame<'a> {
    pub(super) screen: &'a Screen,
    pub(super) located: Option<Located>,
    rule: &'a RuleSign,
    /// Parts that were squeezed already; rules share a handful of regions.
    squeezed: RefCell<Vec<(Range<usize>, Squeezed)>>,
}

/// Rows without their blanks, one behind the other, and where each begins. Programs draw blanks as cursor moves and
/// wrap at any width; what is left of a sentence is the same everywhere.
struct Squeezed {
    text: String,
    starts: Vec<usize>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(screen: &'a Screen, rule: &'a RuleSign) -> Frame<'a> {
        Frame {
            screen,
            located: None,
            rule,
            squeezed: RefCell::default(),
        }
    }

    pub(super) fn rows(&self) -> &'a [String] {
        &self.screen.rows
    }

    /// The rows of a region; none where it is not there. Never for the title.
    pub(super) fn range(&self, region: Region) -> Option<Range<usize>> {
        let rows = self.rows();
        let located = self.located.as_ref();
        match region {
            Region::Screen => Some(0..rows.len()),
            Region::ScreenWithoutBox => located.is_none().then_some(0..rows.len()),
            Region::BelowRule => located.is_none().then(|| self.below_rule()),
            Region::Box => located.map(|found| found.inside.clone()),
            Region::Footer => located.map(|found| found.footer..rows.len()),
            Region::AboveBox(count) => located.map(|found| found.top.saturating_sub(count)..found.top),
            Region::LastRows(count) => Some(last_rows(rows, count)),
            Region::FirstRows(count) => Some(first_rows(rows, count)),
            Region::Title => None,
        }
    }

    fn below_rule(&self) -> Range<usize> {
        let rows = self.rows();
        let last = rows.iter().rposition(|row| !row.trim().is_empty());
        let end = last.map_or(0, |last| last + 1);
        let below_is_text = |at: usize| rows[at + 1..end].iter().any(|row| !row.trim().is_empty());
        let rule = (0..end)
            .rev()
            .find(|at| self.rule.is_rule(&rows[*at]) && below_is_text(*at));
        rule.map_or(0, |at| at + 1)..end
    }

    /// The first row of a region in which `needle`, a text without blanks, begins; it may run over several rows.
    pub(super) fn find(&self, region: Region, needle: &Finder<'_>) -> Option<Hit> {
        if region == Region::Title {
            let title = squeeze(&self.screen.title);
            return needle.find(title.as_bytes()).map(|_| Hit { row: None });
        }
        let range = self.range(region)?;
        self.with_squeezed(range.clone(), |squeezed| {
            let at = needle.find(squeezed.text.as_bytes())?;
            let row = squeezed.starts.partition_point(|start| *start <= at) - 1;
            Some(Hit {
                row: Some(range.start + row),
            })
        })
    }

    /// The first row of a region that begins with `needle`, which has no blanks.
    pub(super) fn find_start(&self, region: Region, needle: &str) -> Option<Hit> {
        if region == Region::Title {
            return squeeze(&self.screen.title)
                .starts_with(needle)
                .then_some(Hit { row: None });
        }
        let range = self.range(region)?;
        self.with_squeezed(range.clone(), |squeezed| {
            let begins = |start: usize, end: usize| start < end && squeezed.text[start..].starts_with(needle);
            let row = squeezed.rows().position(|(start, end)| begins(start, end))?;
            Some(Hit {
                row: Some(range.start + row),
            })
        })
    }

    /// The first row of a region that consists of `needle`, which has no blanks.
    pub(super) fn find_row(&self, region: Region, needle: &str) -> Option<Hit> {
        if region == Region::Title {
            return (squeeze(&self.screen.title) == needle).then_some(Hit { row: None });
        }
        let range = self.range(region)?;
        self.with_squeezed(range.clone(), |squeezed| {
            let row = squeezed
                .rows()
                .position(|(start, end)| &squeezed.text[start..end] == needle)?;
            Some(Hit {
                row: Some(range.start + row),
            })
        })
    }

    /// The first row of a region that an expression matches.
    pub(super) fn find_match(&self, region: Region, expression: &regex::Regex) -> Option<Hit> {
        if region == Region::Title {
            return expression
                .is_match(&self.screen.title)
                .then_some(Hit { row: None });
        }
        let range = self.range(region)?;
        let matches = |row: &String| match row.contains('\u{a0}') {
            true => expression.is_match(&row.replace('\u{a0}', " ")),
            false => expression.is_match(row),
        };
        let row = self.rows()[range.clone()].iter().position(matches)?;
        Some(Hit {
            row: Some(range.start + row),
        })
    }

    fn with_squeezed<T>(&self, range: Range<usize>, look: impl FnOnce(&Squeezed) -> T) -> T {
        let mut kept = self.squeezed.borrow_mut();
        let at = kept.iter().position(|(its, _)| *its == range);
        let at = at.unwrap_or_else(|| {
            let squeezed = Squeezed::of(&self.rows()[range.clone()]);
            kept.push((range, squeezed));
            kept.len() - 1
        });
        look(&kept[at].1)
    }
}

impl Squeezed {
    fn of(rows: &[String]) -> Squeezed {
        let mut text = String::with_capacity(rows.iter().map(String::len).sum());
        let mut starts = Vec::with_capacity(rows.len());
        for row in rows {
            starts.push(text.len());
            if row.is_ascii() {
                text.extend(row.split_ascii_whitespace());
            } else {
                text.extend(row.chars().filter(|c| !c.is_whitespace()));
            }
        }
        Squeezed { text, starts }
    }

    /// Where each row begins and ends; a blank one is empty.
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.starts.iter().skip(1).copied().chain([self.text.len()]);
        self.starts.iter().copied().zip(ends)
    }
}

/// A text without its blanks.
pub(super) fn squeeze(text: &str) -> String {
    text.split(char::is_whitespace).collect()
}

fn last_rows(rows: &[String], count: usize) -> Range<usize> {
    let mut filled = (0..rows.len()).rev().filter(|at| !rows[*at].trim().is_empty());
    let mut start = rows.len();
    let mut end = None;
    for at in filled.by_ref().take(count) {
        start = at;
        end.get_or_insert(at + 1);
    }
    start..end.unwrap_or(rows.len())
}

fn first_rows(rows: &[String], count: usize) -> Range<usize> {
    let filled = (0..rows.len()).filter(|at| !rows[*at].trim().is_empty());
    let taken: Vec<usize> = filled.take(count).collect();
    match (taken.first(), taken.last()) {
        (Some(first), Some(last)) => *first..last + 1,
        _ => 0..0,
    }
}

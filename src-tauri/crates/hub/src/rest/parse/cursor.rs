//! A place in a text, the words that may stand there, and the fault that says where reading ended.
//!
//! Total and linear: every step either moves on or fails. Called by the other modules of `parse`.

use super::super::error::RestError;

/// Where and why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    at: usize,
    expecting: &'static str,
    /// A limit of the hub's own, with its number.
    limit: Option<(&'static str, usize)>,
}

impl Fault {
    /// The fault that got further: it says more about what was meant.
    pub fn or(self, other: Fault) -> Fault {
        if other.limit.is_some() || (self.limit.is_none() && other.at >= self.at) {
            other
        } else {
            self
        }
    }

    /// True when nothing was read past `start`.
    pub fn is_at(&self, start: usize) -> bool {
        self.at == start && self.limit.is_none()
    }

    /// PGRST100 in the words of PostgREST; `title` names the part that was read.
    pub fn told(&self, title: &str, text: &str) -> RestError {
        if let Some((what, most)) = self.limit {
            return RestError::too_much(what, most);
        }
        let read = text.get(..self.at).unwrap_or(text);
        let line = read.matches('\n').count() + 1;
        let column = read.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let found = match text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(character) => format!("{:?}", character.to_string()),
            None => "end of input".to_owned(),
        };
        RestError::bad(
            "PGRST100",
            format!("\"failed to parse {title} ({text})\" (line {line}, column {column})"),
        )
        .with_details(format!("unexpected {found} expecting {}", self.expecting))
    }
}

pub(super) type Read<T> = Result<T, Fault>;

/// A text and how far it was read.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    pub fn new(text: &'t str) -> Cursor<'t> {
        Cursor { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes back to (or on to) a place that [`Cursor::at`] gave.
    pub fn go(&mut self, at: usize) {
        self.at = at;
    }

    pub fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Takes `word` if it stands here.
    pub fn eat(&mut self, word: &str) -> bool {
        let here = self.rest().starts_with(word);
        if here {
            self.at += word.len();
        }
        here
    }

    pub fn expect(&mut self, word: &str, expecting: &'static str) -> Read<()> {
        if self.eat(word) {
            Ok(())
        } else {
            Err(self.fault(expecting))
        }
    }

    pub fn fault(&self, expecting: &'static str) -> Fault {
        Fault {
            at: self.at,
            expecting,
            limit: None,
        }
    }

    /// More of `what` than the hub takes.
    pub fn limit(&self, what: &'static str, most: usize) -> Fault {
        Fault {
            at: self.at,
            expecting: "",
            limit: Some((what, most)),
        }
    }

    pub fn blanks(&mut self) {
        self.while_is(|c| c == ' ' || c == '\t');
    }

    /// Takes characters as long as they are `wanted`.
    pub fn while_is(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Everything that is left.
    pub fn all(&mut self) -> &'t str {
        let rest = self.rest();
        self.at = self.text.len();
        rest
    }

    pub fn end(&self, expecting: &'static str) -> Read<()> {
        if self.is_end() {
            Ok(())
        } else {
            Err(self.fault(expecting))
        }
    }

    /// `"…"` with backslash escapes.
    pub fn quoted(&mut self) -> Read<String> {
        self.expect("\"", "\"\\\"\"")?;
        let mut out = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(out),
                Some('\\') => match self.bump() {
                    Some(escaped) => out.push(escaped),
                    None => return Err(self.fault("any character")),
                },
                Some(character) => out.push(character),
                None => return Err(self.fault("\"\\\"\"")),
            }
        }
    }

    /// A quoted value that is the whole element: a comma, a parenthesis or the end follows. Else nothing is taken.
    pub fn whole_quoted(&mut self) -> Option<String> {
        let start = self.at;
        match self.quoted() {
            Ok(value) if matches!(self.peek(), None | Some(',' | ')')) => Some(value),
            Ok(_) | Err(_) => {
                self.at = start;
                None
            }
        }
    }

    /// Letters, digits, `_`, `$` and blanks; blanks around it do not count.
    pub fn identifier(&mut self) -> Read<&'t str> {
        let word = self.while_is(|c| c.is_alphanumeric() || matches!(c, '_' | ' ' | '$'));
        if word.is_empty() {
            return Err(self.fault("letter, digit or \"_ $\""));
        }
        Ok(word.trim())
    }

    /// The name of a column or relation: quoted, or words joined by dashes.
    pub fn name(&mut self) -> Read<String> {
        const EXPECTING: &str = "field name (* or [a..z0..9_$])";
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let mut name = self.identifier().map_err(|_| self.fault(EXPECTING))?.to_owned();
        while self.rest().starts_with('-') && !self.rest().starts_with("->") {
            self.at += 1;
            name.push('-');
            name.push_str(self.identifier()?);
        }
        Ok(name)
    }

    /// `name,name,…` to the end.
    pub fn names(&mut self) -> Read<Vec<String>> {
        let mut names = Vec::new();
        loop {
            names.push(self.name()?);
            if names.len() > super::ITEMS_MAX {
                return Err(self.limit("columns", super::ITEMS_MAX));
            }
            self.blanks();
            if !self.eat(",") {
                break;
            }
            self.blanks();
        }
        self.end("\"-\", \",\" or end of input")?;
        Ok(names)
    }
}

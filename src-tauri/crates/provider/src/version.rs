//! Version of an agent program, as far as two of them are compared.

/// Version of an installed program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads what a program prints when asked for its version: `2.1.197 (Claude Code)`. Minor and patch may be left
    /// out.
    pub fn parse(text: &str) -> Option<Version> {
        let mut numbers = text.split_whitespace().next()?.splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next().map_or(Some(0), |part| part.parse().ok())?;
        // A pre-release suffix (`197-beta.1`) says nothing we need.
        let patch = numbers.next().map_or(Some(0), |part| {
            part.split(['-', '+'])
                .next()
                .and_then(|digits| digits.parse().ok())
        })?;
        Some(Version { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_a_program_prints() {
        let expected = Version {
            major: 2,
            minor: 1,
            patch: 197,
        };
        assert_eq!(Version::parse("2.1.197 (Claude Code)\n"), Some(expected));
        assert_eq!(Version::parse("2.1.197-beta.3 (Claude Code)"), Some(expected));
        assert_eq!(Version::parse("2.1").map(|version| version.patch), Some(0));
        assert_eq!(Version::parse("Usage: x"), None);
        assert_eq!(Version::parse(""), None);
    }
}

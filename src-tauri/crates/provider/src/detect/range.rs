//! Ranges of program versions, as manifests write them: `>=2.0, <3`.

use crate::version::Version;

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionRange(Vec<(Bound, Version)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Above,
    AtMost,
    Below,
    Exactly,
}

/// What a version is compared by, the longer signs first.
const BOUNDS: &[(&str, Bound)] = &[
    (">=", Bound::AtLeast),
    ("<=", Bound::AtMost),
    (">", Bound::Above),
    ("<", Bound::Below),
    ("=", Bound::Exactly),
];

impl VersionRange {
    /// Reads a range; or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<VersionRange, String> {
        let wrong = |part: &str| {
            format!("`{part}` is no bound of a range; write versions as in \">=2.0, <3\", or \"*\" for all")
        };
        if text.trim() == "*" {
            return Ok(VersionRange(Vec::new()));
        }
        let bound = |part: &str| {
            let part = part.trim();
            let (sign, bound) = BOUNDS.iter().find(|(sign, _)| part.starts_with(sign))?;
            Some((*bound, Version::parse(&part[sign.len()..])?))
        };
        let bounds = text.split(',').map(|part| bound(part).ok_or_else(|| wrong(part)));
        Ok(VersionRange(bounds.collect::<Result<_, _>>()?))
    }

    pub(super) fn contains(&self, version: Version) -> bool {
        self.0.iter().all(|(bound, its)| match bound {
            Bound::AtLeast => version >= *its,
            Bound::Above => version > *its,
            Bound::AtMost => version <= *its,
            Bound::Below => version < *its,
            Bound::Exactly => version == *its,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, version: &str, expected: bool) {
        let range_read = VersionRange::parse(range).unwrap();
        let version_read = Version::parse(version).unwrap();
        assert_eq!(
            range_read.contains(version_read),
            expected,
            "{version} in {range}"
        );
    }

    #[test]
    fn a_range_has_all_its_bounds() {
        check(">=2.0, <3", "2.1.197", true);
        check(">=2.0, <3", "3.0.0", false);
        check(">=2.0, <3", "1.9.9", false);
        check(">2.1,<=2.2", "2.2.0", true);
        check("=2.1.3", "2.1.4", false);
        check("*", "0.0.1", true);
    }

    #[test]
    fn a_wrong_range_says_how_one_is_written() {
        for wrong in ["", "2.0", ">=x", ">=2.0,", "~2"] {
            let error = VersionRange::parse(wrong).unwrap_err();
            assert!(error.contains(">=2.0, <3"), "{error}");
        }
    }
}

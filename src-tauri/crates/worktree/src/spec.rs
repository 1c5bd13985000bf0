//! What a new worktree is to be.

use std::path::{Path, PathBuf};

use crate::error::WorktreeError;

/// Longest folder name that is accepted, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// A worktree to be made: the folder `root/name`, on the new branch `branch`, from `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorktreeSpec {
    /// The folder that holds all worktrees; made when it is missing.
    pub root: PathBuf,
    /// Name of the worktree's folder in `root`: letters, digits, `-`, `_` and `.` only, so that nothing leads out.
    pub name: String,
    /// The branch to make.
    pub branch: String,
    /// Branch, tag or commit to start from; the repository's HEAD when absent.
    pub base: Option<String>,
}

impl WorktreeSpec {
    /// The worktree's folder, once `root` has been resolved to `real_root`.
    pub(crate) fn dir_in(&self, real_root: &Path) -> Result<PathBuf, WorktreeError> {
        let harmless = self
            .name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let fits = (1..=NAME_BYTES_MAX).contains(&self.name.len());
        if !harmless || !fits || self.name.starts_with(['.', '-']) {
            return Err(WorktreeError::BadName {
                what: "the name of a folder",
                name: self.name.clone(),
            });
        }
        Ok(real_root.join(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_folder_of_worktrees() {
        let spec = |name: &str| WorktreeSpec {
            root: "/w".into(),
            name: name.into(),
            branch: "semo/x".into(),
            base: None,
        };
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc",
            "-f",
            ".git",
            "a\0b",
            "é",
            &"x".repeat(101),
        ] {
            assert!(spec(name).dir_in(Path::new("/w")).is_err(), "{name:?}");
        }
        assert_eq!(
            spec("fe-1a2b").dir_in(Path::new("/w")).unwrap(),
            Path::new("/w/fe-1a2b")
        );
    }
}

//! By what a data folder is told from a copy of it on the same computer. A core holds a lock on its folder for its life, so
//! whoever works in this very folder is its only core; of a copy that proves nothing. Called by [`super::Settled::of`].

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One data folder, as the file system knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Where it was at its last start.
    path: PathBuf,
    device: u64,
    inode: u64,
    /// When it was made, in milliseconds since 1970; not all file systems tell.
    #[serde(default)]
    made_ms: Option<u64>,
    /// Made with the folder, and anew wherever it cannot be told that it is the same: no copy has it that this computer
    /// could work in beside the original.
    pub key: Uuid,
}

impl Folder {
    /// The folder as it is now, with a key made of `fresh`. `None` where it cannot be looked at, or its path cannot be
    /// written down.
    pub fn of(dir: &Path, fresh: Uuid) -> Option<Folder> {
        std::fs::create_dir_all(dir).ok()?;
        let path = dir.canonicalize().ok().filter(|path| path.to_str().is_some())?;
        let about = std::fs::metadata(&path).ok()?;
        let made = about.created().ok();
        let made_ms = made.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Some(Folder {
            path,
            device: about.dev(),
            inode: about.ino(),
            made_ms: made_ms.and_then(|at| u64::try_from(at.as_millis()).ok()),
            key: Uuid::new_v5(&fresh, b"folder"),
        })
    }

    /// The numbers of devices change with a start of the machine. A folder that was made at the same moment, has the same
    /// number and stands at the same place is no copy all the same: those are made later.
    fn is_the_same(&self, other: &Folder) -> bool {
        let is_its = (self.inode, self.made_ms) == (other.inode, other.made_ms);
        is_its && (self.device == other.device || (self.path == other.path && self.made_ms.is_some()))
    }

    /// What is remembered from now on: the key stays where the folder is proven to be the same.
    pub fn going_on(then: Option<&Folder>, here: Option<Folder>) -> Option<Folder> {
        let here = here?;
        match then {
            Some(then) if then.is_the_same(&here) => Some(Folder {
                key: then.key,
                ..here
            }),
            _ => Some(here),
        }
    }

    /// The folder that this one was at its last start, where that is another one than `here`, and is still there.
    pub fn elsewhere(&self, here: &Folder) -> Option<PathBuf> {
        if self.is_the_same(here) {
            return None;
        }
        let there = std::fs::metadata(&self.path).ok()?;
        // The same one by another path: a mount, a link.
        let is_here = (there.dev(), there.ino()) == (here.device, here.inode);
        (!is_here).then(|| self.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str, device: u64, inode: u64, made_ms: Option<u64>) -> Folder {
        Folder {
            path: path.into(),
            device,
            inode,
            made_ms,
            key: Uuid::from_u128(1),
        }
    }

    #[test]
    fn a_folder_is_the_same_when_it_was_moved_and_when_its_device_has_another_number_after_a_start() {
        let then = folder("/data", 7, 42, Some(5));
        for (what, here, is_the_same) in [
            ("nothing changed", folder("/data", 7, 42, Some(5)), true),
            ("moved on its file system", folder("/moved", 7, 42, Some(5)), true),
            (
                "after a start of the machine",
                folder("/data", 8, 42, Some(5)),
                true,
            ),
            ("copied", folder("/copy", 7, 43, Some(6)), false),
            ("copied to its place", folder("/data", 7, 43, Some(6)), false),
            (
                "its number was free again",
                folder("/data", 7, 42, Some(6)),
                false,
            ),
            (
                "another volume with the same numbers",
                folder("/copy", 8, 42, Some(5)),
                false,
            ),
        ] {
            assert_eq!(then.is_the_same(&here), is_the_same, "{what}");
        }
        let untold = folder("/data", 7, 42, None);
        assert!(untold.is_the_same(&folder("/moved", 7, 42, None)));
        assert!(
            !untold.is_the_same(&folder("/data", 8, 42, None)),
            "nothing tells it"
        );
    }
}

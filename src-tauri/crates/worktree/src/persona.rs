//! The persona in a worktree: a marked block in an instruction file that the project does not track, hidden from the
//! user's commits through `info/exclude`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use domain::persona::{BLOCK_END, BLOCK_START};
use sha2::{Digest, Sha256};

use crate::error::WorktreeError;
use crate::git::Git;
use crate::lock;
use crate::repository::Worktree;

/// Longest instruction file that we write into, in bytes; beyond any that an agent program takes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Our block, as it stands in a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonaBlock {
    /// The file it is in.
    pub file: PathBuf,
    /// The block with its marks.
    pub text: String,
    /// Its [`persona_hash`].
    pub hash: String,
}

/// The hash by which two persona blocks are compared: SHA-256 in hex, without regard to blank ends.
pub fn persona_hash(block: &str) -> String {
    let hash = Sha256::digest(block.trim().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stands before our lines in `info/exclude`.
const EXCLUDE_NOTE: &str = "# SEMO Office: files with an agent's persona";

pub(crate) async fn write(
    worktree: &Worktree,
    candidates: &[&str],
    block: &str,
) -> Result<PathBuf, WorktreeError> {
    let Some((relative, file)) = place(worktree, candidates).await? else {
        return Err(WorktreeError::PersonaPlace {
            path: worktree.path.clone(),
            files: candidates.join(", "),
        });
    };
    // Hidden first: between the two steps there must be no moment in which `git add` would take the file.
    {
        let _lock = lock::take(worktree.repository().common_dir(), "hide a file in").await?;
        exclude(worktree, relative)?;
    }
    let existing = text_of(&file)?.unwrap_or_default();
    replace_file(&file, &with_block(&existing, block))?;
    Ok(file)
}

pub(crate) fn read(worktree: &Path, candidates: &[&str]) -> Result<Option<PersonaBlock>, WorktreeError> {
    for relative in candidates {
        if !reached_without_link(worktree, relative) {
            continue;
        }
        let file = worktree.join(relative);
        let text = text_of(&file)?.unwrap_or_default();
        if let Some(range) = block_in(&text) {
            let text = text[range].to_owned();
            let hash = persona_hash(&text);
            return Ok(Some(PersonaBlock { file, text, hash }));
        }
    }
    Ok(None)
}

pub(crate) fn remove(worktree: &Path, candidates: &[&str]) -> Result<Vec<PathBuf>, WorktreeError> {
    let mut changed = Vec::new();
    for relative in candidates {
        if !reached_without_link(worktree, relative) {
            continue;
        }
        let file = worktree.join(relative);
        let Some(rest) = text_of(&file)?.as_deref().and_then(without_block) else {
            continue;
        };
        if rest.is_empty() {
            fs::remove_file(&file).map_err(WorktreeError::io("remove", &file))?;
            drop_empty_folders(worktree, &file);
        } else {
            replace_file(&file, &rest)?;
        }
        changed.push(file);
    }
    Ok(changed)
}

/// The folders that were made for the file go with it; one in which something is stays, as the system sees to.
fn drop_empty_folders(worktree: &Path, file: &Path) {
    let mut folder = file.parent();
    while let Some(empty) = folder.filter(|folder| *folder != worktree) {
        if fs::remove_dir(empty).is_err() {
            return;
        }
        folder = empty.parent();
    }
}

/// `None` when there is no such file. One that is too long is refused, never cut: what is read is written back. So is
/// what is no file: opening a pipe would wait for its other end.
fn text_of(file: &Path) -> Result<Option<String>, WorktreeError> {
    match regular(file) {
        Ok(open) => {
            let mut text = String::new();
            open.take(FILE_BYTES_MAX + 1)
                .read_to_string(&mut text)
                .map_err(WorktreeError::io("read", file))?;
            if text.len() as u64 > FILE_BYTES_MAX {
                let too_large = std::io::ErrorKind::FileTooLarge;
                return Err(WorktreeError::io("read", file)(too_large.into()));
            }
            Ok(Some(text))
        }
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(WorktreeError::io("read", file)(error)),
    }
}

/// Opens a file for reading that is a regular one, without ever waiting.
fn regular(file: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let refused = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file");
    // Looked at before it is opened, because opening alone can have an effect, and after, because it may be replaced.
    if !fs::metadata(file)?.is_file() {
        return Err(refused());
    }
    let open = options.open(file)?;
    if !open.metadata()?.is_file() {
        return Err(refused());
    }
    Ok(open)
}

/// The first candidate that is not the project's own and that we reach without following a link.
async fn place<'a>(
    worktree: &Worktree,
    candidates: &[&'a str],
) -> Result<Option<(&'a str, PathBuf)>, WorktreeError> {
    for relative in candidates {
        let plain = Path::new(relative)
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !plain || relative.is_empty() {
            return Err(WorktreeError::BadName {
                what: "a persona file",
                name: (*relative).to_owned(),
            });
        }
        let tracked = Git::new(&worktree.path, "look up a file")
            .args(["ls-files", "-z", "--", &format!(":(literal){relative}")])
            .text()
            .await?;
        let file = worktree.path.join(relative);
        if tracked.is_empty() && reached_without_link(&worktree.path, relative) && make_parent(&file)? {
            return Ok(Some((relative, file)));
        }
    }
    Ok(None)
}

/// A project may hold `.claude` as a link to anywhere: writing through it would leave the worktree.
fn reached_without_link(worktree: &Path, relative: &str) -> bool {
    let mut path = worktree.to_owned();
    for component in Path::new(relative).components() {
        path.push(component);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return false;
        }
    }
    true
}

/// Makes the folder of a file; `false` when something that is no folder is in the way.
fn make_parent(file: &Path) -> Result<bool, WorktreeError> {
    let Some(folder) = file.parent() else {
        return Ok(false);
    };
    match fs::create_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(WorktreeError::io("make the folder", folder)(error)),
    }
}

/// `existing` with our block in place of an earlier one, else behind what is there. What [`without_block`] takes away
/// is exactly what this adds.
fn with_block(existing: &str, block: &str) -> String {
    let block = block.trim();
    if let Some(range) = block_in(existing) {
        return format!("{}{block}{}", &existing[..range.start], &existing[range.end..]);
    }
    if existing.is_empty() {
        format!("{block}\n")
    } else {
        format!("{existing}\n\n{block}\n")
    }
}

/// What stood there before our block came; `None` where there is none.
fn without_block(text: &str) -> Option<String> {
    let range = block_in(text)?;
    let (above, below) = (&text[..range.start], &text[range.end..]);
    let above = above.strip_suffix("\n\n").unwrap_or(above);
    let below = below.strip_prefix('\n').unwrap_or(below);
    Some(format!("{above}{below}"))
}

/// Where our block stands.
fn block_in(text: &str) -> Option<std::ops::Range<usize>> {
    let start = text.find(BLOCK_START)?;
    let length = text[start..].find(BLOCK_END)?;
    Some(start..start + length + BLOCK_END.len())
}

/// Adds the file to `info/exclude` of the repository, once.
fn exclude(worktree: &Worktree, relative: &str) -> Result<(), WorktreeError> {
    let file = worktree.repository().common_dir().join("info").join("exclude");
    let line = format!("/{relative}");
    let existing = text_of(&file)?.unwrap_or_default();
    if existing.lines().any(|known| known.trim_end() == line) {
        return Ok(());
    }
    let mut text = existing;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.contains(EXCLUDE_NOTE) {
        text.push_str(EXCLUDE_NOTE);
        text.push('\n');
    }
    text.push_str(&line);
    text.push('\n');
    make_parent(&file)?;
    replace_file(&file, &text)
}

/// Whole or not at all: a reader never sees half of it, and a full disk leaves the old file.
fn replace_file(file: &Path, text: &str) -> Result<(), WorktreeError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".semo-").tempfile_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(file).map_or(0o644, |found| found.permissions().mode() & 0o777);
            temporary
                .as_file()
                .set_permissions(fs::Permissions::from_mode(mode))?;
        }
        temporary.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(WorktreeError::io("write", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stands_beside_what_is_there_and_replaces_only_itself() {
        let block = |text: &str| format!("{BLOCK_START}\n{text}\n{BLOCK_END}\n");
        let first = with_block("# My notes\n\nkeep\n", &block("one"));
        assert_eq!(first, format!("# My notes\n\nkeep\n\n\n{}", block("one")));
        let edited = format!("{first}\nmine, below\n");
        let second = with_block(&edited, &block("two"));
        assert_eq!(
            second,
            edited.replace("one", "two"),
            "the text around it is untouched"
        );
        assert_eq!(with_block("", &block("one")), block("one"));
    }
}

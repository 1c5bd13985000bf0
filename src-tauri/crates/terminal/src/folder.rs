//! The folder of one holder: its record, its socket and its log. Readable by its owner only.
//!
//! The record says who holds: a process with its start time, in one boot of this machine. It is replaced as a whole, so
//! that a reader finds the old one or the new one. The program's environment is never written here. Cores and holders
//! both use it; nobody else knows its files.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::process::{self, ProcessId};
use crate::wire::PROTOCOL;

/// Longest tag: an id with room to spare.
const TAG_BYTES_MAX: usize = 128;
/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 16 * 1024;
/// What is shown of a holder's log.
const LOG_BYTES_MAX: u64 = 2 * 1024;

const RECORD: &str = "record";
const RECORD_NEW: &str = "record.new";
const SOCKET: &str = "socket";
const LOG: &str = "log";
const AWAY: &str = "output";

/// Who holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of what is said over the socket.
    pub(crate) protocol: u32,
    /// Version of the holder's program.
    pub(crate) version: String,
    /// Which run of this machine.
    pub(crate) boot: String,
    pub(crate) tag: String,
    pub(crate) holder: Who,
    /// The program's own process; absent before it is started.
    pub(crate) root: Option<ProcessId>,
    /// How it came to an end when the holder ended it by itself.
    pub(crate) ended: Option<String>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// A core that is about to start a holder.
    Starter(ProcessId),
    /// The holder.
    Holder(ProcessId),
}

impl Who {
    pub(crate) fn process(self) -> ProcessId {
        match self {
            Who::Starter(process) | Who::Holder(process) => process,
        }
    }
}

impl Record {
    pub(crate) fn new(tag: &str, boot: &str, holder: Who) -> Record {
        Record {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: boot.to_owned(),
            tag: tag.to_owned(),
            holder,
            root: None,
            ended: None,
        }
    }

    /// Whether it names a process of this boot that still runs.
    pub(crate) fn lives(&self, boot: &str) -> bool {
        self.boot == boot && process::lives(self.holder.process())
    }
}

/// What the kernel calls this run of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// An open folder; what happens in it happens in this one, whatever becomes of its path.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    open: OwnedFd,
}

impl Folder {
    /// Makes the folder of a tag; an error when it is there already.
    pub(crate) fn create(dir: &Path, tag: &str) -> io::Result<Folder> {
        let path = dir.join(checked(tag)?);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        // Not "exists already", which is said of the tag's folder only.
        made.map_err(|error| io::Error::other(error.to_string()))?;
        let found = fs::symlink_metadata(dir)?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Folder::open(&path)
    }

    /// Opens the folder of a tag; `None` when there is none.
    pub(crate) fn find(dir: &Path, tag: &str) -> io::Result<Option<Folder>> {
        match Folder::open(&dir.join(checked(tag)?)) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Folder {
            path: path.to_owned(),
            open: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Claims the folder for as long as this handle lives: a holder does for its life, and who proves that there is none
    /// while it does so. False when another has it. Where a file system knows no locks it is always ours.
    pub(crate) fn claim(&self) -> bool {
        let claimed = rustix::fs::flock(&self.open, FlockOperation::NonBlockingLockExclusive);
        !matches!(claimed, Err(rustix::io::Errno::WOULDBLOCK))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.open, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let mut file = self.file(RECORD_NEW, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        // Not forced onto the disk: after a reboot it says nothing that the boot's id does not say as well.
        rustix::fs::renameat(&self.open, RECORD_NEW, &self.open, RECORD)?;
        Ok(())
    }

    /// The record; `None` when it is not there, or not a whole one.
    pub(crate) fn record(&self) -> io::Result<Option<Record>> {
        let file = match self.file(RECORD, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// A file without a name, for output that is too much for the memory: it goes with whoever has it open.
    pub(crate) fn nameless(&self) -> io::Result<File> {
        let file = self.file(AWAY, OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR)?;
        rustix::fs::unlinkat(&self.open, AWAY, AtFlags::empty())?;
        Ok(file)
    }

    /// Whether everything is there by which a holder is found.
    pub(crate) fn is_in_order(&self) -> bool {
        [RECORD, SOCKET].into_iter().all(|name| self.has(name))
    }

    /// Whether this very folder was removed, so that no path leads to it any more. That a name is not found in it proves
    /// nothing: over a network, or beside somebody who tidies up, that passes.
    pub(crate) fn is_gone(&self) -> bool {
        rustix::fs::fstat(&self.open).is_ok_and(|about| about.st_nlink == 0)
    }

    /// Whether there is a socket.
    pub(crate) fn has_socket(&self) -> bool {
        self.has(SOCKET)
    }

    fn has(&self, name: &str) -> bool {
        // What cannot be looked at may be there.
        let found = rustix::fs::statat(&self.open, name, AtFlags::SYMLINK_NOFOLLOW);
        !matches!(found, Err(rustix::io::Errno::NOENT))
    }

    /// Where faults of the holder are written.
    pub(crate) fn log(&self) -> io::Result<File> {
        self.file(LOG, OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY)
    }

    /// The beginning of the log, on one line; empty when there is none.
    pub(crate) fn logged(&self) -> String {
        let mut text = Vec::new();
        if let Ok(file) = self.file(LOG, OFlags::RDONLY) {
            // What cannot be read is not shown.
            let _ = file.take(LOG_BYTES_MAX).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The socket by a path that is short however long the folder's is: a socket's address has room for 107 bytes.
    fn socket(&self) -> String {
        format!("/proc/self/fd/{}/{SOCKET}", self.open.as_raw_fd())
    }

    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind(self.socket())
    }

    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.socket())
    }

    /// Removes the folder with what a holder puts into it, and nothing else.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for name in [SOCKET, LOG, AWAY, RECORD_NEW, RECORD] {
            match rustix::fs::unlinkat(&self.open, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A tag becomes the name of a folder: nothing may lead out of it.
fn checked(tag: &str) -> io::Result<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && !tag.starts_with('.') && tag.chars().all(fits) {
        true => Ok(tag),
        false => Err(io::Error::other(
            "a tag has letters, digits, `-`, `_` and `.` only, and at most 128 of them",
        )),
    }
}

/// The tags that have a folder in `dir`.
pub(crate) fn tags(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut tags = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && checked(&name).is_ok() {
            tags.push(name);
        }
    }
    tags.sort();
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_never_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        for tag in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc",
            ".hidden",
            "a b",
            "é",
            &"x".repeat(129),
        ] {
            assert!(Folder::create(dir.path(), tag).is_err(), "{tag:?}");
            assert!(Folder::find(dir.path(), tag).is_err(), "{tag:?}");
        }
    }

    #[test]
    fn a_record_is_there_as_a_whole_or_not_at_all_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("deep/holders"), "one").unwrap();
        assert_eq!(folder.record().unwrap(), None);
        fs::write(folder.path().join(RECORD), b"{\"protocol\":1,\"ver").unwrap();
        assert_eq!(folder.record().unwrap(), None, "half a record is none");
        let own = process::identify(std::process::id());
        let record = Record::new("one", "this-boot", Who::Holder(own));
        folder.write(&record).unwrap();
        assert_eq!(folder.record().unwrap(), Some(record.clone()));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join(RECORD)), 0o600);
        assert!(record.lives("this-boot"));
        assert!(!record.lives("another-boot"), "pids of another boot are nobody's");
        let later = ProcessId {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(
            !Record::new("one", "this-boot", Who::Holder(later)).lives("this-boot"),
            "a pid that came again is somebody else"
        );
        assert!(
            Folder::create(&dir.path().join("deep/holders"), "one").is_err(),
            "it is there already"
        );
        assert_eq!(tags(&dir.path().join("deep/holders")).unwrap(), ["one"]);
        folder.remove().unwrap();
        assert!(tags(&dir.path().join("deep/holders")).unwrap().is_empty());
    }
}

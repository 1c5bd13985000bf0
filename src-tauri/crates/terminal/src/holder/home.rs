//! Where a holder that is a process can be found: its folder with record and socket, and what wakes it beside its core.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::folder::{Folder, Record};

/// What a holder that is a process has beside its program.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    /// The disk has refused the record of now; it is tried again.
    pub(crate) is_unwritten: bool,
    pub(crate) listener: UnixListener,
    /// Readable when a child has ended.
    pub(crate) children: UnixStream,
    /// Readable when this process is to end.
    pub(crate) ends: UnixStream,
}

impl Home {
    /// Writes the record of now. On a full disk the one of before stands.
    pub(crate) fn write_record(&mut self) -> io::Result<()> {
        let written = self.folder.write(&self.record);
        self.is_unwritten = written.is_err();
        written
    }

    /// Puts in order what this holder is found by, where somebody has removed it. False when the folder itself is gone:
    /// nobody can find it any more.
    pub(crate) fn keep(&mut self) -> bool {
        if self.folder.is_gone() {
            return false;
        }
        if self.folder.is_in_order() && !self.is_unwritten {
            return true;
        }
        // What cannot be written now is tried again with the next look.
        let _ = self.write_record();
        if !self.folder.has_socket()
            && let Ok(listener) = self.folder.listen()
            && listener.set_nonblocking(true).is_ok()
        {
            self.listener = listener;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::folder::Who;
    use crate::process;

    fn home(dir: &std::path::Path) -> Home {
        let folder = Folder::create(dir, "one").unwrap();
        let own = process::identify(std::process::id());
        Home {
            record: Record::new("one", "this-boot", Who::Holder(own)),
            is_unwritten: true,
            listener: folder.listen().unwrap(),
            children: UnixStream::pair().unwrap().0,
            ends: UnixStream::pair().unwrap().0,
            folder,
        }
    }

    #[test]
    fn a_folder_in_which_somebody_tidies_up_is_not_gone_and_a_removed_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = home(dir.path());
        let draft = home.folder.path().join("record.new");
        let (enough, removed) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !enough.load(Ordering::SeqCst) {
                    if std::fs::remove_file(&draft).is_ok() {
                        removed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut stayed = true;
            // Each time the record of now has lost its file before it was in its place.
            while stayed && removed.load(Ordering::SeqCst) < 3 && Instant::now() < deadline {
                home.is_unwritten = true;
                stayed = home.keep();
            }
            enough.store(true, Ordering::SeqCst);
            assert!(stayed, "the folder is there");
        });
        assert!(removed.load(Ordering::SeqCst) > 0, "nothing was tried");
        assert!(home.keep());
        std::fs::remove_dir_all(home.folder.path()).unwrap();
        assert!(!home.keep());
    }
}

//! Where a holder that is a process can be found: its folder with record and socket, and what wakes it beside its core.

use std::io::{self, ErrorKind};
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
        if self.folder.is_in_order() && !self.is_unwritten {
            return true;
        }
        match self.write_record() {
            // Nothing can be made in a folder that was removed.
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            // It is tried again with the next look.
            Ok(()) | Err(_) => {}
        }
        if !self.folder.has_socket()
            && let Ok(listener) = self.folder.listen()
            && listener.set_nonblocking(true).is_ok()
        {
            self.listener = listener;
        }
        true
    }
}

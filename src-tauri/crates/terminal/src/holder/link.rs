//! The connection of a holder to its core: small frames from a buffer, output straight from what is kept.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::holder::kept::Kept;
use crate::wire::{
    FRAME_BYTES_MAX, Frames, FromCore, Hello, OUTPUT_BYTES_MAX, OUTPUT_HEAD_BYTES, PROTOCOL, output_head,
};

/// One read from a core.
const READ_BYTES: usize = 16 * 1024;
/// Answers that a core has not read and may leave unread: more, and it is taken for broken. A painting has room.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// An output frame on its way.
struct Sending {
    head: [u8; OUTPUT_HEAD_BYTES],
    /// Offset of its first byte, and how many it has.
    offset: u64,
    count: usize,
    /// Bytes sent, the head's counted.
    sent: usize,
    /// Its bytes, where they are not (or will not be) in what is kept as they are.
    copied: Option<Vec<u8>>,
}

/// A core that this holder obeys.
pub(crate) struct Link {
    pub(crate) stream: UnixStream,
    pub(crate) epoch: u64,
    /// What is spoken with it.
    pub(crate) protocol: u32,
    frames: Frames,
    answers: VecDeque<u8>,
    sending: Option<Sending>,
    /// Output before this offset has been sent or is on its way.
    pub(crate) position: u64,
    /// When the core last took something.
    pub(crate) progress: Instant,
    /// Whether the stream took no more the last time.
    pub(crate) is_full: bool,
}

impl Link {
    /// `frames` may have begun with what follows the first frame.
    pub(crate) fn new(
        stream: UnixStream,
        hello: &Hello,
        mut frames: Frames,
        from: u64,
        now: Instant,
    ) -> Link {
        frames.allow(FRAME_BYTES_MAX);
        Link {
            stream,
            epoch: hello.epoch,
            // Whoever cannot be spoken with has been refused.
            protocol: hello.spoken().unwrap_or(PROTOCOL),
            frames,
            answers: VecDeque::new(),
            sending: None,
            position: from,
            progress: now,
            is_full: false,
        }
    }

    pub(crate) fn answer(&mut self, frame: &[u8]) {
        self.answers.extend(frame);
    }

    /// What the core has said; an error when it is gone, or says what no core says.
    pub(crate) fn hear(&mut self) -> io::Result<Vec<FromCore>> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.frames.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        self.heard()
    }

    /// The same of what has come already: who greets may go on without waiting for our answer.
    pub(crate) fn heard(&mut self) -> io::Result<Vec<FromCore>> {
        let mut heard = Vec::new();
        while let Some((kind, payload)) = self.frames.next().map_err(io::Error::other)? {
            heard.push(FromCore::decode(kind, &payload).map_err(io::Error::other)?);
        }
        Ok(heard)
    }

    /// Whether all output up to `upto` is on its way and nothing waits.
    pub(crate) fn has_sent(&self, upto: u64) -> bool {
        self.position >= upto && self.sending.is_none()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.sending.is_none() && self.answers.is_empty()
    }

    /// Sends what there is, as far as the core takes it: answers first, output up to `upto`.
    pub(crate) fn send(&mut self, kept: &Kept, upto: u64, now: Instant) -> io::Result<()> {
        self.is_full = false;
        if self.answers.len() > ANSWERS_BYTES_MAX {
            return Err(io::Error::other("the core does not read our answers"));
        }
        loop {
            // A frame that was begun must be ended before the next.
            let sent = if self.sending.is_some() || (self.answers.is_empty() && self.begin(kept, upto)) {
                self.send_output(kept)
            } else if !self.answers.is_empty() {
                self.send_answers()
            } else {
                return Ok(());
            };
            match sent {
                Ok(()) => self.progress = now,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn begin(&mut self, kept: &Kept, upto: u64) -> bool {
        // What is gone is left out: the core sees it by the offset.
        let mut offset = self.position.max(kept.start());
        let most = |offset: u64| upto.min(offset + OUTPUT_BYTES_MAX as u64);
        let mut run = kept.run(offset, most(offset));
        while run.is_empty() && offset < upto.min(kept.end()) {
            // The disk does not give it back.
            offset = kept.next_block(offset);
            self.position = offset;
            run = kept.run(offset, most(offset));
        }
        if run.is_empty() {
            return false;
        }
        let count = run.len();
        self.position = offset + count as u64;
        self.sending = Some(Sending {
            head: output_head(offset, count),
            offset,
            count,
            sent: 0,
            copied: match run {
                Cow::Borrowed(_) => None,
                Cow::Owned(bytes) => Some(bytes),
            },
        });
        true
    }

    fn send_output(&mut self, kept: &Kept) -> io::Result<()> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let head = sending.head.get(sending.sent..).unwrap_or_default();
        let done = sending.sent.saturating_sub(OUTPUT_HEAD_BYTES);
        let upto = sending.offset + sending.count as u64;
        let run = match &sending.copied {
            Some(bytes) => Cow::Borrowed(&bytes[done..]),
            None => kept.run(sending.offset + done as u64, upto),
        };
        let sent = match head.is_empty() {
            true => self.stream.write(&run)?,
            false => self
                .stream
                .write_vectored(&[IoSlice::new(head), IoSlice::new(&run)])?,
        };
        if sent == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        sending.sent += sent;
        if sending.sent == OUTPUT_HEAD_BYTES + sending.count {
            self.sending = None;
        }
        Ok(())
    }

    fn send_answers(&mut self) -> io::Result<()> {
        let (first, second) = self.answers.as_slices();
        let sent = self
            .stream
            .write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?;
        if sent == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.answers.drain(..sent);
        if self.answers.is_empty() {
            self.answers = VecDeque::new();
        }
        Ok(())
    }

    /// What is kept before `offset` is about to be forgotten: a frame that needs it takes its bytes along.
    pub(crate) fn rescue(&mut self, kept: &Kept, offset: u64) {
        if let Some(sending) = &mut self.sending
            && sending.copied.is_none()
            && sending.offset < offset
        {
            let upto = sending.offset + sending.count as u64;
            sending.copied = Some(kept.run(sending.offset, upto).into_owned());
        }
    }
}

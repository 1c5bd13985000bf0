//! What a core and a holder say to each other: frames of a length, a kind and a payload on a stream.
//!
//! Both sides take the other's bytes as outside input: no length is believed before the bytes are there, every frame
//! has a limit, and what cannot be understood ends the connection, never the program. The numbers are little-endian.
//! A change that an older side would misread raises [`PROTOCOL`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::emulator::Size;
use crate::process::ProcessId;
use crate::pty::{Exit, SpawnSpec, WRITE_BYTES_MAX};

/// The version of what follows, and the oldest that is still spoken: a holder outlives the program that started it.
pub(crate) const PROTOCOL: u32 = 2;
pub(crate) const PROTOCOL_OLDEST: u32 = 1;
/// The first version in which input can be taken back.
pub(crate) const PROTOCOL_WITHDRAWS: u32 = 2;
/// Most bytes of a frame behind its length: a program's whole environment has room.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of the first frame of somebody who comes to a holder's socket.
pub(crate) const HELLO_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of output in one frame.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a painting.
pub(crate) const PAINTING_BYTES_MAX: usize = 512 * 1024;
/// Largest offset of output that is believed: beyond what a program can print, and far from an overflow.
const OFFSET_MAX: u64 = 1 << 62;
/// Length, kind and offset: what stands before the bytes of an output frame.
pub(crate) const OUTPUT_HEAD_BYTES: usize = 13;

const HELLO: u8 = 1;
const INPUT: u8 = 2;
const RESIZE: u8 = 3;
const CHECKPOINT: u8 = 4;
const RELEASE: u8 = 5;
const WITHDRAW: u8 = 6;
const WELCOME: u8 = 65;
const REFUSED: u8 = 66;
pub(crate) const OUTPUT: u8 = 67;
const INPUT_DONE: u8 = 68;
const EXITED: u8 = 69;
const PAINTING: u8 = 70;
const DISPLACED: u8 = 71;
const CAUGHT_UP: u8 = 72;

/// Bytes that are not what the other side may send.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("a frame of {bytes} bytes is longer than the {max} that are allowed")]
    TooLong { bytes: usize, max: usize },
    #[error("a frame of kind {kind} cannot be understood: {why}")]
    Malformed { kind: u8, why: String },
}

/// The first frame of a core.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The protocols it speaks.
    pub(crate) lowest: u32,
    pub(crate) highest: u32,
    pub(crate) tag: String,
    pub(crate) epoch: u64,
    /// Output is wanted from here on.
    pub(crate) from: u64,
    /// What to start: there in the first connection of a holder, and only there.
    pub(crate) plan: Option<Plan>,
}

impl Hello {
    /// The newest protocol that both sides speak.
    pub(crate) fn spoken(&self) -> Option<u32> {
        let newest = self.highest.min(PROTOCOL);
        (newest >= self.lowest.max(PROTOCOL_OLDEST)).then_some(newest)
    }
}

/// What to start. Holds secrets: never logged, never written to a disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) size: Size,
    /// After so many milliseconds without a core the program is ended.
    pub(crate) alone_ms_max: u64,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl Plan {
    pub(crate) fn of(spec: &SpawnSpec, alone_ms_max: u64) -> Plan {
        Plan {
            program: spec.program.clone(),
            args: spec.args.clone(),
            cwd: spec.cwd.clone(),
            env: spec.env.clone(),
            size: spec.size.clamped(),
            alone_ms_max,
        }
    }
}

/// A holder's answer to a core that it obeys from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u32,
    /// Version of the program, for people.
    pub(crate) version: String,
    pub(crate) holder: ProcessId,
    pub(crate) root: ProcessId,
    pub(crate) size: Size,
    /// Offsets of the output that is kept.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The program has ended; the exit itself follows behind the output.
    pub(crate) exited: bool,
}

/// A holder's answer to a core that it does not obey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) kind: Refusal,
    pub(crate) why: String,
    /// With [`Refusal::Taken`]: the launch that is obeyed. Absent from holders of before it was told.
    #[serde(default)]
    pub(crate) launch: Option<u64>,
}

impl Refused {
    pub(crate) fn new(kind: Refusal, why: String) -> Refused {
        let launch = None;
        Refused { kind, why, launch }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// There is no pseudo terminal.
    Open,
    /// The program could not be started.
    Spawn,
    /// The holder's own affairs could not be put in order.
    Own,
    /// No common protocol.
    Protocol,
    /// Another core holds it.
    Taken,
    /// Not a core, or not for this holder.
    Stranger,
}

/// A painting of the screen: what shows it on an empty one, with its modes, after all output before `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Painting {
    pub(crate) offset: u64,
    pub(crate) ansi: Vec<u8>,
}

/// What a core says.
#[derive(Debug, Clone)]
pub(crate) enum FromCore {
    Hello(Hello),
    Input {
        id: u64,
        bytes: Vec<u8>,
    },
    Resize(Size),
    Checkpoint(Painting),
    /// The program is proven gone: the holder may go, and its folder with it.
    Release,
    /// This input is not wanted any more; answered in each case, unless it was before.
    Withdraw {
        id: u64,
    },
}

/// When input was handed to the kernel, in nanoseconds of the monotonic clock, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    Done {
        started_ns: u64,
        finished_ns: u64,
    },
    Not {
        why: String,
    },
    /// It was taken back in time: none of it was typed, and none will be.
    Withdrawn,
    /// The program has a part of it already, and gets the rest when it reads: half a paste would swallow what follows.
    Begun,
}

/// What a holder says, but for output, which is read as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromHolder {
    Welcome(Welcome),
    Refused(Refused),
    InputDone {
        id: u64,
        typed: Typed,
    },
    /// The program has ended, and all output before this has been sent.
    Exited(Exit),
    Painting(Painting),
    /// Another core holds it from now on.
    Displaced,
    /// All that was there when the core was welcomed has been sent: output, painting, exit.
    CaughtUp,
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(5 + payload);
    bytes.extend_from_slice(&length_of(1 + payload));
    bytes.push(kind);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn length_of(bytes: usize) -> [u8; 4] {
    // Longer ones are not made; a wrong length would end the connection, nothing else.
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn json(kind: u8, value: &impl Serialize) -> Vec<u8> {
    // These types have no keys that JSON cannot hold; an empty payload is refused by the other side.
    frame(kind, &[&serde_json::to_vec(value).unwrap_or_default()])
}

/// What stands before `count` bytes of output at `offset`.
pub(crate) fn output_head(offset: u64, count: usize) -> [u8; OUTPUT_HEAD_BYTES] {
    let mut head = [0; OUTPUT_HEAD_BYTES];
    head[..4].copy_from_slice(&length_of(9 + count));
    head[4] = OUTPUT;
    head[5..].copy_from_slice(&offset.to_le_bytes());
    head
}

pub(crate) fn input(id: u64, bytes: &[u8]) -> Vec<u8> {
    frame(INPUT, &[&id.to_le_bytes(), bytes])
}

pub(crate) fn checkpoint(painting: &Painting) -> Vec<u8> {
    frame(CHECKPOINT, &[&painting.offset.to_le_bytes(), &painting.ansi])
}

impl FromCore {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            FromCore::Hello(hello) => json(HELLO, hello),
            FromCore::Input { id, bytes } => input(*id, bytes),
            FromCore::Resize(size) => frame(RESIZE, &[&size.cols.to_le_bytes(), &size.rows.to_le_bytes()]),
            FromCore::Checkpoint(painting) => checkpoint(painting),
            FromCore::Release => frame(RELEASE, &[]),
            FromCore::Withdraw { id } => frame(WITHDRAW, &[&id.to_le_bytes()]),
        }
    }

    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<FromCore, WireError> {
        let malformed = |why: &str| malformed(kind, why);
        match kind {
            HELLO => Ok(FromCore::Hello(parsed(kind, payload)?)),
            INPUT => {
                let (id, bytes) = number(payload).ok_or_else(|| malformed("no id"))?;
                if bytes.len() > WRITE_BYTES_MAX {
                    return Err(malformed("too much input"));
                }
                let bytes = bytes.to_vec();
                Ok(FromCore::Input { id, bytes })
            }
            RESIZE => {
                let sides: [u8; 4] = payload.try_into().map_err(|_| malformed("not two sides"))?;
                let side = |low, high| u16::from_le_bytes([low, high]);
                let size = Size {
                    cols: side(sides[0], sides[1]),
                    rows: side(sides[2], sides[3]),
                };
                Ok(FromCore::Resize(size.clamped()))
            }
            CHECKPOINT => Ok(FromCore::Checkpoint(painting(kind, payload)?)),
            RELEASE if payload.is_empty() => Ok(FromCore::Release),
            WITHDRAW => {
                let (id, _) = number(payload).ok_or_else(|| malformed("no id"))?;
                Ok(FromCore::Withdraw { id })
            }
            _ => Err(malformed("no core says this")),
        }
    }
}

impl FromHolder {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            FromHolder::Welcome(welcome) => json(WELCOME, welcome),
            FromHolder::Refused(refused) => json(REFUSED, refused),
            FromHolder::InputDone { id, typed } => {
                let id = id.to_le_bytes();
                match typed {
                    Typed::Done {
                        started_ns,
                        finished_ns,
                    } => frame(
                        INPUT_DONE,
                        &[&id, &[1], &started_ns.to_le_bytes(), &finished_ns.to_le_bytes()],
                    ),
                    Typed::Not { why } => frame(INPUT_DONE, &[&id, &[0], why.as_bytes()]),
                    Typed::Withdrawn => frame(INPUT_DONE, &[&id, &[2]]),
                    Typed::Begun => frame(INPUT_DONE, &[&id, &[3]]),
                }
            }
            FromHolder::Exited(exit) => json(EXITED, exit),
            FromHolder::Painting(painting) => {
                frame(PAINTING, &[&painting.offset.to_le_bytes(), &painting.ansi])
            }
            FromHolder::Displaced => frame(DISPLACED, &[]),
            FromHolder::CaughtUp => frame(CAUGHT_UP, &[]),
        }
    }

    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<FromHolder, WireError> {
        let malformed = |why: &str| malformed(kind, why);
        match kind {
            WELCOME => {
                let welcome: Welcome = parsed(kind, payload)?;
                plausible(welcome.start)?;
                Ok(FromHolder::Welcome(welcome))
            }
            REFUSED => Ok(FromHolder::Refused(parsed(kind, payload)?)),
            INPUT_DONE => {
                let (id, rest) = number(payload).ok_or_else(|| malformed("no id"))?;
                let typed = match rest.split_first() {
                    Some((1, times)) => {
                        let (started_ns, rest) = number(times).ok_or_else(|| malformed("no time"))?;
                        let (finished_ns, _) = number(rest).ok_or_else(|| malformed("no second time"))?;
                        Typed::Done {
                            started_ns,
                            finished_ns,
                        }
                    }
                    Some((0, why)) => Typed::Not {
                        why: String::from_utf8_lossy(why).into_owned(),
                    },
                    Some((2, _)) => Typed::Withdrawn,
                    Some((3, _)) => Typed::Begun,
                    _ => return Err(malformed("neither done nor not")),
                };
                Ok(FromHolder::InputDone { id, typed })
            }
            EXITED => Ok(FromHolder::Exited(parsed(kind, payload)?)),
            PAINTING => Ok(FromHolder::Painting(painting(kind, payload)?)),
            DISPLACED => Ok(FromHolder::Displaced),
            CAUGHT_UP => Ok(FromHolder::CaughtUp),
            _ => Err(malformed("no holder says this")),
        }
    }
}

fn malformed(kind: u8, why: &str) -> WireError {
    WireError::Malformed {
        kind,
        why: why.to_owned(),
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(kind: u8, payload: &[u8]) -> Result<T, WireError> {
    // Not the parser's own words: they show what it stumbled over, which may be a secret of the program's environment.
    let words = |error: serde_json::Error| format!("{:?} fault at byte {}", error.classify(), error.column());
    serde_json::from_slice(payload).map_err(|error| malformed(kind, &words(error)))
}

/// Offsets that no program comes to are not counted on.
pub(crate) fn plausible(offset: u64) -> Result<(), WireError> {
    match offset <= OFFSET_MAX {
        true => Ok(()),
        false => Err(malformed(OUTPUT, "an offset that no output comes to")),
    }
}

fn painting(kind: u8, payload: &[u8]) -> Result<Painting, WireError> {
    let (offset, ansi) = number(payload).ok_or_else(|| malformed(kind, "no offset"))?;
    if ansi.len() > PAINTING_BYTES_MAX {
        return Err(malformed(kind, "too large a painting"));
    }
    let ansi = ansi.to_vec();
    Ok(Painting { offset, ansi })
}

/// The number at the beginning, and what follows it.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*first), rest))
}

/// Bytes as they come, cut into frames.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Frames {
    pub(crate) fn new(bytes_max: usize) -> Frames {
        Frames {
            bytes: Vec::new(),
            bytes_max,
        }
    }

    /// From now on frames may be as long as this.
    pub(crate) fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame that is there as a whole: its kind and its payload.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, WireError> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 || length > self.bytes_max {
            return Err(WireError::TooLong {
                bytes: length,
                max: self.bytes_max,
            });
        }
        let Some(frame) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let (kind, payload) = (frame[0], frame[1..].to_vec());
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A large frame is rare: its memory is not kept for ever.
            self.bytes = Vec::new();
        }
        Ok(Some((kind, payload)))
    }

    /// What has come behind the frames that were taken.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Frames::new(FRAME_BYTES_MAX);
        let mut all = Vec::new();
        for chunk in bytes.chunks(piece) {
            frames.push(chunk);
            while let Some(frame) = frames.next().unwrap() {
                all.push(frame);
            }
        }
        all
    }

    #[test]
    fn what_is_said_is_understood_in_pieces_of_any_size() {
        let said = [
            FromHolder::InputDone {
                id: 7,
                typed: Typed::Done {
                    started_ns: 1,
                    finished_ns: u64::MAX,
                },
            },
            FromHolder::InputDone {
                id: 8,
                typed: Typed::Not { why: "닫힘".into() },
            },
            FromHolder::Exited(Exit {
                code: None,
                signal: Some("Killed".into()),
            }),
            FromHolder::Painting(Painting {
                offset: 9,
                ansi: b"\x1b[H".to_vec(),
            }),
            FromHolder::Displaced,
            FromHolder::CaughtUp,
        ];
        let bytes: Vec<u8> = said.iter().flat_map(FromHolder::encode).collect();
        for piece in [1, 2, 5, 7, 1000] {
            let heard: Vec<FromHolder> = cut(&bytes, piece)
                .iter()
                .map(|(kind, payload)| FromHolder::decode(*kind, payload).unwrap())
                .collect();
            assert_eq!(heard, said, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_hundred_thousand_random_frames_neither_panic_nor_grow() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut frames = Frames::new(HELLO_BYTES_MAX);
        let (mut understood, mut refused) = (0, 0);
        for _ in 0..100_000 {
            // Half of them are frames in form, so that the decoders behind are reached.
            let mut bytes: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
            if next().is_multiple_of(2) {
                let kinds = [
                    HELLO, INPUT, RESIZE, CHECKPOINT, RELEASE, WELCOME, INPUT_DONE, EXITED, PAINTING, 0,
                ];
                bytes = frame(kinds[next() as usize % kinds.len()], &[&bytes]);
            }
            frames.push(&bytes);
            loop {
                match frames.next() {
                    Ok(None) => break,
                    Ok(Some((kind, payload))) => {
                        understood += u32::from(FromCore::decode(kind, &payload).is_ok());
                        understood += u32::from(FromHolder::decode(kind, &payload).is_ok());
                    }
                    Err(_) => {
                        refused += 1;
                        frames = Frames::new(HELLO_BYTES_MAX);
                    }
                }
            }
            assert!(frames.bytes.len() <= HELLO_BYTES_MAX + 64);
        }
        assert!(
            understood > 1_000 && refused > 1_000,
            "{understood} and {refused}"
        );
    }
}

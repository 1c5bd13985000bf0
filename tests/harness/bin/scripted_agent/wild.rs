//! What no agent should do: floods, bytes that are no text, escape sequences without end, children that stay.

use std::io::Write;
use std::process::{Command, Stdio};

/// One write of a flood.
const BLOCK_BYTES: usize = 64 * 1024;
/// Length of a sequence that never ends, in bytes.
const ENDLESS_BYTES: usize = 1024 * 1024;

/// Lines of text, `bytes` of them in all, the last one cut.
pub fn flood(out: &mut dyn Write, bytes: u64) {
    let line = format!(
        "{}\r\n",
        "the quick brown fox jumps over the lazy dog 0123456789 "
            .repeat(2)
            .trim_end()
    );
    let mut block: Vec<u8> = line.bytes().cycle().take(BLOCK_BYTES).collect();
    let mut left = bytes;
    while left > 0 {
        block.truncate(usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES));
        if out.write_all(&block).is_err() {
            return;
        }
        left -= block.len() as u64;
    }
}

/// Bytes that are no UTF-8, lone surrogates, cut characters, control characters of both sets.
pub fn garbage(out: &mut dyn Write) {
    let mut bytes: Vec<u8> = (0..=255u8).cycle().take(64 * 1024).collect();
    bytes.retain(|byte| !matches!(byte, 0x1b | 0x90 | 0x9b | 0x9d));
    let _ = out.write_all(&bytes);
    for piece in [
        &b"\xed\xa0\x80"[..],
        b"\xf0\x9f\x98",
        b"\xc0\xaf",
        b"\xff\xfe",
        b"\xf4\x90\x80\x80",
        b"\xe2\x28\xa1",
    ] {
        let _ = out.write_all(&piece.repeat(500));
    }
}

/// Sequences without end, numbers without measure, requests that are none of an agent's business.
pub fn escapes(out: &mut dyn Write) {
    let endless = vec![b'x'; ENDLESS_BYTES];
    for start in [
        &b"\x1b]0;"[..],
        b"\x1b]8;;",
        b"\x1bP1$q",
        b"\x1b_G",
        b"\x1b^",
        b"\x1bX",
        b"\x1b]52;c;",
    ] {
        let _ = out.write_all(start);
        let _ = out.write_all(&endless);
        // Taken back, so that the next one begins at all.
        let _ = out.write_all(b"\x18");
    }
    let _ = out.write_all(b"\x1b[");
    let _ = out.write_all(&b"9;".repeat(100_000));
    let _ = out.write_all(b"m");
    for sequence in [
        "\x1b[99999999999999999999;99999999999999999999H",
        "\x1b[2147483647b\x1b[65535@\x1b[65535L\x1b[65535M\x1b[65535P\x1b[65535X\x1b[65535S\x1b[65535T",
        "\x1b[8;9999;9999t\x1b[4;9999;9999t\x1b[3;0;0t",
        "\x1b[10;5r\x1b[0;0r\x1b[65535;1r\x1b[1;65535r",
        "\x1b]52;c;ZXZpbA==\x07\x1b]52;p;ZXZpbA==\x1b\\",
        "\x1b[?1049h\x1b[?1000h\x1b[?1003h\x1b[?1006h\x1b[?2004l\x1b[20h\x1b[4h\x1b[?7l\x1b[?6h",
        "\x1b#8\x1bc\x1b(0\x1b)0\x0e\x1b[c\x1b[>q\x1b[6n\x1b[5n\x1b[21t",
    ] {
        let _ = out.write_all(sequence.as_bytes());
    }
    // The screen engine itself gives up on this one.
    let _ = out.write_all("\x1b[9999;9999H\u{2764}\u{fe0f}\x1b[9998;9999Hx".as_bytes());
    for n in 0..2_000 {
        let _ = write!(
            out,
            "\x1b]0;title {n} {}\x07\x1b]2;{}\x07",
            "t".repeat(500),
            "u".repeat(50)
        );
    }
}

/// Children in sessions of their own that take no notice of TERM, one of them an orphan from the start.
pub fn fork() {
    let stay = "trap '' TERM HUP INT QUIT; while :; do sleep 1; done";
    let start = |program: &str, args: &[&str]| {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        drop(child);
    };
    start("sh", &["-c", stay]);
    start("setsid", &["sh", "-c", stay]);
    let orphan = format!(
        "setsid sh -c \"{stay}\" & setsid sh -c \"setsid sh -c '{}' & exit\" & exit",
        stay.replace('\'', "")
    );
    // A grandchild whose parent has gone before anybody looks.
    start("sh", &["-c", &orphan]);
}

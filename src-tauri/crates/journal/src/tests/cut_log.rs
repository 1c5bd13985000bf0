//! A write-ahead log as a power cut or a bad disk may leave it: whatever is cut off or garbled, what stands before it is
//! there, in order and without gaps, and nothing panics.

use super::*;

/// Bytes of the log's header, and of the header of each frame in it (SQLite's file format, section 4).
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const PAGE: usize = 4_096;

/// A journal file, its log after eight commands, and the length of the log after each of them.
struct Cut {
    file: Vec<u8>,
    log: Vec<u8>,
    ends: Vec<usize>,
}

fn recorded() -> Cut {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    // Closing brings the tables into the file and removes the log.
    drop(Journal::open(&path).unwrap());
    let journal = Journal::open(&path).unwrap();
    let log = dir.path().join("journal.db-wal");
    let ends = (0..8)
        .map(|n| {
            journal.receive(&command(10 + n), NOW).unwrap();
            usize::try_from(fs::metadata(&log).unwrap().len()).unwrap()
        })
        .collect();
    Cut {
        file: fs::read(&path).unwrap(),
        log: fs::read(&log).unwrap(),
        ends,
    }
}

/// The commands that a start finds with this log.
fn found(file: &[u8], log: &[u8]) -> Vec<Uuid> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    fs::write(&path, file).unwrap();
    fs::write(dir.path().join("journal.db-wal"), log).unwrap();
    let journal = Journal::open(&path).unwrap();
    // It can be written, too.
    assert_eq!(journal.receive(&command(99), NOW).unwrap(), Received::New);
    let mut rows: Vec<Uuid> = journal
        .unfinished()
        .unwrap()
        .into_iter()
        .map(|row| row.command.id.0)
        .collect();
    assert_eq!(rows.pop(), Some(id(99)));
    rows
}

fn first(count: usize) -> Vec<Uuid> {
    (0..count as u128).map(|n| id(10 + n)).collect()
}

#[test]
fn a_log_that_is_cut_anywhere_keeps_all_that_was_written_before_the_cut() {
    let Cut { file, log, ends } = recorded();
    let mut cuts = vec![0, 1, LOG_HEADER - 1, LOG_HEADER, LOG_HEADER + 1];
    let mut frame = LOG_HEADER;
    while frame < log.len() {
        cuts.extend([
            frame + 1,
            frame + FRAME_HEADER,
            frame + FRAME_HEADER + PAGE / 2,
            frame + FRAME_HEADER + PAGE - 1,
            frame + FRAME_HEADER + PAGE,
        ]);
        frame += FRAME_HEADER + PAGE;
    }
    let mut random = Random(7);
    cuts.extend((0..100).map(|_| random.below(log.len())));
    for cut in cuts.into_iter().filter(|cut| *cut <= log.len()) {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(found(&file, &log[..cut]), first(whole), "cut at {cut}");
    }
    assert_eq!(found(&file, &log), first(8));
}

#[test]
fn garbage_in_a_log_takes_nothing_that_stands_before_it() {
    let Cut { file, log, ends } = recorded();
    let mut random = Random(8);
    for _ in 0..100 {
        let mut garbled = log.clone();
        let at = random.below(log.len());
        garbled[at] ^= 1 << random.below(8);
        let before = ends.iter().filter(|end| **end <= at).count();
        let rows = found(&file, &garbled);
        // A frame's page number, salts and content are under its checksum; the header's are under one of its own.
        let expected = if at < LOG_HEADER { 0 } else { before };
        assert!(
            rows == first(expected) || rows == first(8) && unread(at),
            "byte {at}: {} rows, {expected} stand before it",
            rows.len()
        );
    }
    for tail in [1, 100, FRAME_HEADER + PAGE, 3 * PAGE] {
        let mut longer = log.clone();
        longer.extend((0..tail).map(|_| random.below(256) as u8));
        assert_eq!(found(&file, &longer), first(8), "{tail} bytes behind it");
    }
    assert_eq!(
        found(&file, &vec![0; log.len()]),
        first(0),
        "a log of zeroes is no log"
    );
}

/// The checkpoint number in the log's header is not read back.
fn unread(at: usize) -> bool {
    (12..16).contains(&at)
}

#[test]
fn the_index_beside_the_log_is_made_anew_whatever_stands_in_it() {
    let place = place();
    place.journal.receive(&command(10), NOW).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(place.dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let index = dir.path().join("journal.db-shm");
    let length = fs::metadata(&index).unwrap().len() as usize;
    for bytes in [vec![0xa5; length], vec![0; length], vec![1, 2, 3]] {
        fs::write(&index, bytes).unwrap();
        let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
        assert_eq!(journal.unfinished().unwrap().len(), 1);
    }
}

#[test]
fn the_log_does_not_grow_with_what_is_written() {
    let place = place();
    let log = place.dir.path().join("journal.db-wal");
    let mut longest = 0;
    for n in 0..3_000 {
        place
            .journal
            .write_soon("fill", |transaction| {
                transaction.execute(
                    "insert or replace into memory (key, value) values (?1, ?2)",
                    (n % 10, format!("{n}").repeat(2_000)),
                )?;
                Ok(())
            })
            .unwrap();
        longest = longest.max(fs::metadata(&log).unwrap().len());
    }
    assert!(longest > 1_000_000, "{longest}");
    assert!(longest < 8_000_000, "{longest}");
}

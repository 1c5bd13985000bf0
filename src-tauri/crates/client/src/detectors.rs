//! The detectors in use: the bundled manifests and the owner's (`<data folder>/detectors/*.toml`), read again when a file
//! changes. The loop owns a [`DetectorWatch`]; sessions hold receivers, so that a change reaches running ones.
//!
//! A hint of the file system wakes, a slow look at the folder decides: on some disks no hint ever comes. A file that
//! cannot be used is told and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use provider::Version;
use provider::claude::PROGRAM;
use provider::detect::{Detector, DetectorFault, Detectors, FOLDER_FILES_MAX, OfficePatterns};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::event_loop::Event;

/// How long the folder must be quiet before it is read: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// Hints that a burst may take before it is read all the same.
const HINTS_MAX: u32 = 50;
/// How often the folder is looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Faults that are told at once; the rest is counted.
const FAULTS_TOLD_MAX: usize = 3;

/// The detectors in use, and who reads with them.
pub(crate) struct DetectorWatch {
    detectors: Detectors,
    /// One per version of the agent program that sessions were started with; the last is that of now.
    readers: Vec<Reader>,
}

struct Reader {
    version: Option<Version>,
    detector: watch::Sender<Arc<Detector>>,
}

impl DetectorWatch {
    /// The bundled ones, until the folder was read.
    pub(crate) fn new() -> DetectorWatch {
        let detectors = Detectors::bundled();
        DetectorWatch {
            readers: vec![Reader::new(&detectors, None)],
            detectors,
        }
    }

    /// Takes what was read; running sessions see it at once.
    pub(crate) fn take(&mut self, detectors: Detectors) {
        self.detectors = detectors;
        for reader in &self.readers {
            let detector = self.detectors.for_program(PROGRAM, reader.version.as_ref());
            reader.detector.send_replace(detector);
        }
    }

    /// The version of the agent program that sessions are started with from now on.
    pub(crate) fn version_found(&mut self, version: Version) {
        if self
            .readers
            .last()
            .is_some_and(|reader| reader.version == Some(version))
        {
            return;
        }
        let reader = Reader::new(&self.detectors, Some(version));
        let detector = reader.detector.borrow().clone();
        if detector.is_guess() {
            tracing::warn!(
                detector = detector.name(),
                "screens are read by a manifest for other versions"
            );
        }
        self.readers.retain(|reader| reader.detector.receiver_count() > 0);
        self.readers.push(reader);
    }

    /// The version of the agent program that sessions are started with now; nothing before it was looked for.
    pub(crate) fn version(&self) -> Option<Version> {
        self.readers.last().and_then(|reader| reader.version)
    }

    /// A session of an earlier core may run a version that sessions are not started with any more.
    pub(crate) fn know(&mut self, version: Option<Version>) {
        if version.is_some() && self.readers.iter().all(|reader| reader.version != version) {
            // In front: the last one is that of now.
            self.readers.insert(0, Reader::new(&self.detectors, version));
        }
    }

    /// What a session that is started now reads its screen with, now and after every change.
    pub(crate) fn reader(&self) -> watch::Receiver<Arc<Detector>> {
        self.reader_of(self.version())
    }

    /// The same of a session whose program has this version. Of a version that is not known, that of now has to do.
    pub(crate) fn reader_of(&self, version: Option<Version>) -> watch::Receiver<Arc<Detector>> {
        let its = self.readers.iter().rev().find(|reader| reader.version == version);
        match its.or(self.readers.last()) {
            Some(reader) => reader.detector.subscribe(),
            None => Reader::new(&self.detectors, None).detector.subscribe(),
        }
    }

    /// The patterns of the owner's files.
    pub(crate) fn patterns(&self) -> &OfficePatterns {
        self.detectors.patterns()
    }
}

impl Reader {
    fn new(detectors: &Detectors, version: Option<Version>) -> Reader {
        Reader {
            version,
            detector: watch::Sender::new(detectors.for_program(PROGRAM, version.as_ref())),
        }
    }
}

/// What is wrong, for people: one line for each of the first faults.
pub(crate) fn told(faults: &[DetectorFault]) -> String {
    let mut lines: Vec<String> = faults
        .iter()
        .take(FAULTS_TOLD_MAX)
        .map(ToString::to_string)
        .collect();
    if faults.len() > FAULTS_TOLD_MAX {
        lines.push(format!("and {} more", faults.len() - FAULTS_TOLD_MAX));
    }
    lines.join("\n")
}

/// Reads `folder` and reads it again when it changes, until `stop`. What is new comes as [`Event::DetectorsRead`].
pub(crate) async fn follow(folder: PathBuf, events: mpsc::Sender<Event>, stop: CancellationToken) {
    // Made here, so that its first file is seen at once.
    if let Err(error) = std::fs::create_dir_all(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "the folder for detectors could not be made");
    }
    // One hint that waits is as good as many.
    let (hint, mut hints) = mpsc::channel(1);
    let mut watcher = None;
    let mut known = Detectors::bundled();
    let mut seen = None;
    loop {
        watcher = watcher
            .filter(|_| folder.is_dir())
            .or_else(|| watch_folder(&folder, &hint));
        match read(&folder, known.clone(), seen.take()).await {
            Some(Read { print, news }) => {
                seen = Some(print);
                if let Some((detectors, faults)) = news {
                    known = detectors.clone();
                    if events
                        .send(Event::DetectorsRead { detectors, faults })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            None => return,
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hints.recv() => settle(&mut hints).await,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Waits until no more hints come.
async fn settle(hints: &mut mpsc::Receiver<()>) {
    for _ in 0..HINTS_MAX {
        if timeout(QUIET, hints.recv()).await.is_err() {
            return;
        }
    }
}

/// None while the folder is not there: one that is made again is found by the slow look.
fn watch_folder(folder: &Path, hint: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    if !folder.is_dir() {
        return None;
    }
    let hint = hint.clone();
    let watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
        // Full: somebody is about to look anyway.
        let _ = hint.try_send(());
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(
            |error| tracing::warn!(%error, folder = %folder.display(), "changes are only seen by looking"),
        )
        .ok()
}

/// Names, sizes and times of the files: what has the same was not changed.
type Print = Vec<(PathBuf, u64, Option<std::time::SystemTime>)>;

struct Read {
    print: Print,
    /// None: nothing has changed.
    news: Option<(Detectors, Vec<DetectorFault>)>,
}

/// None when the runtime is ending.
async fn read(folder: &Path, known: Detectors, seen: Option<Print>) -> Option<Read> {
    let folder = folder.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let print = print_of(&folder);
        // A first look at an empty folder tells nothing new.
        let news = (seen.unwrap_or_default() != print).then(|| known.with_folder(&folder));
        Read { print, news }
    });
    reading.await.ok()
}

fn print_of(folder: &Path) -> Print {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut print: Print = entries
        .take(2 * FOLDER_FILES_MAX)
        .filter_map(|entry| {
            // Through a link: the file behind it is what is read.
            let path = entry.path();
            let about = path.metadata().ok()?;
            Some((path, about.len(), about.modified().ok()))
        })
        .collect();
    print.sort();
    print
}

#[cfg(test)]
mod tests {
    use provider::detect::ScreenMeaning;
    use terminal::{Size, paint};

    use super::*;

    const NEWS_WAIT: Duration = Duration::from_secs(30);

    const OWN: &str = r#"
format = 1
provider = "claude"
version = "2099.1.1.1"
programs = "*"
extends = true

[[rule]]
id = "ours"
means = "menu"
in = "screen"
any = [{ contains = "Pick a colour" }]

[patterns]
completion = ['^FERTIG$']
"#;

    struct Following {
        folder: tempfile::TempDir,
        events: mpsc::Receiver<Event>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Following {
        fn start(make_folder: bool) -> Following {
            let folder = tempfile::tempdir().unwrap();
            if make_folder {
                std::fs::create_dir(folder.path().join("detectors")).unwrap();
            }
            let (sender, events) = mpsc::channel(8);
            let stop = CancellationToken::new();
            let tracker = tokio_util::task::TaskTracker::new();
            let task = tracker.spawn(follow(folder.path().join("detectors"), sender, stop.clone()));
            Following {
                folder,
                events,
                stop,
                task,
            }
        }

        fn write(&self, name: &str, text: &str) {
            let folder = self.folder.path().join("detectors");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        }

        /// The next news that are as wanted; those before them may have caught half a change.
        async fn news(
            &mut self,
            wanted: impl Fn(&Detectors, &[DetectorFault]) -> bool,
        ) -> (Detectors, Vec<DetectorFault>) {
            let whole = async {
                loop {
                    if let Some(Event::DetectorsRead { detectors, faults }) = self.events.recv().await
                        && wanted(&detectors, &faults)
                    {
                        return (detectors, faults);
                    }
                }
            };
            timeout(NEWS_WAIT, whole)
                .await
                .expect("the change was not seen in time")
        }
    }

    fn rule_of(detector: &Detector) -> String {
        let screen = paint(Size { cols: 40, rows: 10 }, b"Pick a colour");
        let reading = detector.read(&screen);
        assert!(matches!(
            reading.meaning,
            ScreenMeaning::Unclear | ScreenMeaning::Dialog(_)
        ));
        reading.rule.to_string()
    }

    fn knows_ours(detectors: &Detectors) -> bool {
        rule_of(&detectors.for_program("claude", None)) == "claude/ours"
    }

    #[test]
    fn a_session_of_an_earlier_core_is_read_by_the_version_it_was_started_with() {
        let (old, new) = (
            Version::parse("2.1.197").unwrap(),
            Version::parse("9.9.9").unwrap(),
        );
        let mut watch = DetectorWatch::new();
        assert!(watch.reader().borrow().is_guess(), "nothing was looked for yet");
        watch.know(Some(old));
        let left = watch.reader_of(Some(old));
        assert!(!left.borrow().is_guess());
        assert_eq!(watch.version(), None, "what is started now is another matter");
        watch.version_found(new);
        assert_eq!(watch.version(), Some(new));
        assert!(!left.borrow().is_guess());
        assert!(!watch.reader_of(Some(old)).borrow().is_guess());
        assert!(watch.reader().borrow().is_guess());
    }

    #[tokio::test]
    async fn a_changed_file_reaches_a_running_session() {
        let mut following = Following::start(true);
        let mut watch = DetectorWatch::new();
        watch.version_found(Version::parse("2.1.197").unwrap());
        let session = watch.reader();
        assert_eq!(rule_of(&session.borrow()), "claude/none");

        following.write("own.toml", OWN);
        let (detectors, faults) = following.news(|detectors, _| knows_ours(detectors)).await;
        assert_eq!(faults, []);
        watch.take(detectors);
        assert_eq!(rule_of(&session.borrow()), "claude/ours");
        assert!(watch.patterns().completes("FERTIG").is_some());

        std::fs::remove_file(following.folder.path().join("detectors/own.toml")).unwrap();
        let (detectors, _) = following.news(|detectors, _| !knows_ours(detectors)).await;
        watch.take(detectors);
        assert_eq!(rule_of(&session.borrow()), "claude/none", "gone with its file");

        following.stop.cancel();
        timeout(NEWS_WAIT, following.task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_bad_file_is_told_with_its_line_and_the_last_good_one_stays() {
        let mut following = Following::start(true);
        following.write("own.toml", OWN);
        following.news(|detectors, _| knows_ours(detectors)).await;

        following.write("own.toml", &OWN.replace("means = \"menu\"", "means = \"menü\""));
        let (detectors, faults) = following.news(|_, faults| !faults.is_empty()).await;
        assert!(knows_ours(&detectors), "what it said before stays in use");
        let told = told(&faults);
        assert!(
            told.contains("own.toml:10, rule \"ours\": `menü` is no meaning; there are: unclear, ready"),
            "{told}"
        );

        following.write("own.toml", OWN);
        let (_, faults) = following.news(|_, faults| faults.is_empty()).await;
        assert_eq!(faults, []);
        following.stop.cancel();
    }

    #[tokio::test]
    async fn the_folder_is_there_from_the_start() {
        let following = Following::start(false);
        let folder = following.folder.path().join("detectors");
        let made = async {
            while !folder.is_dir() {
                tokio::task::yield_now().await;
            }
        };
        timeout(NEWS_WAIT, made).await.expect("the folder is made");
        following.stop.cancel();
        timeout(NEWS_WAIT, following.task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_found_by_looking() {
        tokio::time::pause();
        let mut following = Following::start(false);
        let folder = following.folder.path().join("detectors");
        while !folder.is_dir() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_dir(&folder).unwrap();
        following.write("own.toml", OWN);
        // Time that stands still jumps to the next look as soon as nobody has anything to do.
        let (detectors, _) = following.news(|detectors, _| knows_ours(detectors)).await;
        assert!(knows_ours(&detectors));
        following.stop.cancel();
    }

    #[test]
    fn a_session_keeps_the_version_it_was_started_with() {
        let mut watch = DetectorWatch::new();
        watch.version_found(Version::parse("2.1.197").unwrap());
        let old = watch.reader();
        watch.version_found(Version::parse("9.0.0").unwrap());
        let new = watch.reader();
        watch.take(Detectors::bundled());
        assert!(!old.borrow().is_guess() && new.borrow().is_guess());
        assert!(new.borrow().name().contains("9.0.0"), "{}", new.borrow().name());
    }

    #[test]
    fn no_more_faults_are_told_than_can_be_read() {
        let fault = |line| DetectorFault {
            file: Some("/x/a.toml".into()),
            line: Some(line),
            key: "rule \"y\"".to_owned(),
            what: "wrong".to_owned(),
        };
        let many: Vec<DetectorFault> = (1..=5).map(fault).collect();
        let told = told(&many);
        assert_eq!(told.lines().count(), FAULTS_TOLD_MAX + 1);
        assert!(
            told.starts_with("/x/a.toml:1, rule \"y\": wrong\n") && told.ends_with("and 2 more"),
            "{told}"
        );
    }
}

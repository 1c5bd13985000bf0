//! Against the real git: the user's things stay as they are, nothing is lost, trouble is told clearly.

use std::fs;
use std::path::{Path, PathBuf};

use domain::SessionId;
use domain::persona::{BLOCK_END, BLOCK_START};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::git::Git;

mod disk;
mod kept;
mod odd;
mod parallel;
mod persona;

const PERSONA_FILES: &[&str] = &[".claude/CLAUDE.md", "CLAUDE.local.md"];

/// A repository of a user, and a folder for worktrees.
struct Place {
    dir: TempDir,
    repository: Repository,
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let repository = sample_repository(&dir.path().join("project")).await.unwrap();
        Place { dir, repository }
    }

    fn top(&self) -> &Path {
        self.repository.root()
    }

    fn spec(&self, name: &str) -> WorktreeSpec {
        WorktreeSpec {
            root: self.dir.path().join("worktrees"),
            name: name.into(),
            branch: format!("semo/{name}"),
            base: None,
        }
    }

    async fn worktree(&self, name: &str) -> Worktree {
        self.repository.create(&self.spec(name)).await.unwrap()
    }
}

async fn git(dir: &Path, args: &[&str]) -> String {
    Git::new(dir, "test").args(args).text().await.unwrap()
}

fn write(dir: &Path, name: &str, text: &str) {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn block(text: &str) -> String {
    format!("{BLOCK_START}\n{text}\n{BLOCK_END}\n")
}

/// All that a user would notice in the own folder: branch, state of the files, index, stash.
async fn users_view(top: &Path) -> String {
    let mut view = git(top, &["status", "--porcelain=v2", "--branch"]).await;
    view += &git(top, &["ls-files", "--stage"]).await;
    view += &git(top, &["stash", "list"]).await;
    view
}

#[tokio::test]
async fn a_worktree_is_made_on_its_own_branch_and_the_users_folder_stays_as_it_is() {
    let place = Place::new().await;
    write(
        place.top(),
        "README.md",
        "the user is in the middle of something\n",
    );
    write(place.top(), "new.txt", "untracked");
    git(place.top(), &["add", "README.md"]).await;
    let before = users_view(place.top()).await;

    let worktree = place.worktree("fe-1").await;

    assert_eq!(
        worktree.path,
        fs::canonicalize(place.dir.path()).unwrap().join("worktrees/fe-1")
    );
    let facts = worktree.facts().await.unwrap();
    assert_eq!(facts.branch.as_deref(), Some("semo/fe-1"));
    assert!(
        !facts.dirty,
        "it starts from the commit, not from the user's half-done work"
    );
    assert_eq!(users_view(place.top()).await, before);
}

/// Runs all of them at the same time on this task.
async fn futures_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in pinned.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            return std::task::Poll::Ready(outputs.iter_mut().filter_map(Option::take).collect());
        }
        std::task::Poll::Pending
    })
    .await
}

#[tokio::test]
async fn hooks_of_the_repository_do_not_run() {
    let place = Place::new().await;
    let hook = place.top().join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\n").unwrap();
    let mut mode = fs::metadata(&hook).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&hook, mode).unwrap();
    place.worktree("fe-1").await;
    assert!(!hook.with_file_name("ran").exists());
}

#[tokio::test]
async fn what_is_no_repository_is_told_with_what_to_do() {
    let place = Place::new().await;
    let check = async |path: PathBuf, expected: &str| {
        let error = Repository::open(&path).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
        assert!(
            error.contains(path.to_str().unwrap()),
            "{error:?} should name {}",
            path.display()
        );
    };
    let plain = place.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("file"), "").unwrap();
    check(place.dir.path().join("gone"), "there is no such folder").await;
    check(plain.clone(), "run `git init` there").await;
    check(plain.join("file"), "not a git repository").await;
    check(place.top().join("ui"), "only a part of the repository").await;
}

#[tokio::test]
async fn a_bare_repository_can_have_worktrees() {
    let place = Place::new().await;
    let bare = place.dir.path().join("bare.git");
    git(
        place.dir.path(),
        &["clone", "--quiet", "--bare", "project", "bare.git"],
    )
    .await;
    let repository = Repository::open(&bare).await.unwrap();
    let worktree = repository.create(&place.spec("b-1")).await.unwrap();
    worktree.write_persona(PERSONA_FILES, &block("x")).await.unwrap();
    assert!(!worktree.facts().await.unwrap().dirty);
    worktree.remove(session(1)).await.unwrap();
    assert!(!worktree.path.exists());
}

#[tokio::test]
async fn a_worktree_that_cannot_be_made_is_told_and_leaves_nothing() {
    let place = Place::new().await;
    place.worktree("taken").await;
    // `@{-1}`, the branch before this one, has a meaning only when there was one.
    git(place.top(), &["switch", "--quiet", "--create", "earlier"]).await;
    git(place.top(), &["switch", "--quiet", "main"]).await;
    let before = git(place.top(), &["for-each-ref"]).await;
    let check = async |change: &dyn Fn(&mut WorktreeSpec), expected: &str| {
        let mut spec = place.spec("new");
        change(&mut spec);
        let error = place.repository.create(&spec).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
        assert!(!place.dir.path().join("worktrees/new").exists());
    };
    check(
        &|spec| spec.base = Some("no-such-branch".into()),
        "is no branch, tag or commit",
    )
    .await;
    check(
        &|spec| spec.base = Some("--upload-pack=x".into()),
        "is no branch, tag or commit",
    )
    .await;
    check(&|spec| spec.branch = "semo/taken".into(), "exists already").await;
    check(
        &|spec| spec.branch = "-f".into(),
        "cannot be used as the name of a branch",
    )
    .await;
    check(
        &|spec| spec.branch = "@{-1}".into(),
        "cannot be used as the name of a branch",
    )
    .await;
    check(
        &|spec| spec.name = "../outside".into(),
        "cannot be used as the name of a folder",
    )
    .await;
    check(&|spec| spec.name = "taken".into(), "something is there already").await;
    assert_eq!(git(place.top(), &["for-each-ref"]).await, before);
}

#[tokio::test]
async fn an_empty_repository_asks_for_a_first_commit() {
    let place = Place::new().await;
    let empty = place.dir.path().join("empty");
    git(place.dir.path(), &["init", "--quiet", "empty"]).await;
    let repository = Repository::open(&empty).await.unwrap();
    let error = repository.create(&place.spec("x")).await.unwrap_err();
    assert!(matches!(error, WorktreeError::NoCommit { .. }), "{error}");
}

#[tokio::test]
async fn a_link_in_place_of_the_worktree_leads_nowhere() {
    let place = Place::new().await;
    let elsewhere = place.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(place.dir.path().join("worktrees")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.dir.path().join("worktrees/fe-1")).unwrap();
    let error = place.repository.create(&place.spec("fe-1")).await.unwrap_err();
    assert!(matches!(error, WorktreeError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn the_persona_never_shows_up_in_the_users_commits() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let file = worktree
        .write_persona(PERSONA_FILES, &block("You are Mina."))
        .await
        .unwrap();
    assert_eq!(file, worktree.path.join(".claude/CLAUDE.md"));
    assert_eq!(read(&file), block("You are Mina."));
    write(&worktree.path, "ui/app.js", "// changed\n");
    git(&worktree.path, &["add", "--all"]).await;
    git(&worktree.path, &["commit", "--quiet", "-m", "work"]).await;
    assert_eq!(
        git(&worktree.path, &["show", "--name-only", "--format="]).await,
        "ui/app.js"
    );

    worktree
        .write_persona(PERSONA_FILES, &block("You are Mina, again."))
        .await
        .unwrap();
    assert_eq!(read(&file), block("You are Mina, again."), "one block, not two");
    let exclude = read(place.top().join(".git/info/exclude"));
    assert_eq!(exclude.matches("/.claude/CLAUDE.md").count(), 1, "{exclude}");
}

#[tokio::test]
async fn a_projects_own_instructions_are_never_written_to() {
    let place = Place::new().await;
    write(place.top(), ".claude/CLAUDE.md", "rules of the project\n");
    git(place.top(), &["add", "--all"]).await;
    git(place.top(), &["commit", "--quiet", "-m", "rules"]).await;
    let worktree = place.worktree("fe-1").await;

    let file = worktree
        .write_persona(PERSONA_FILES, &block("You are Mina."))
        .await
        .unwrap();

    assert_eq!(file, worktree.path.join("CLAUDE.local.md"));
    assert_eq!(
        read(worktree.path.join(".claude/CLAUDE.md")),
        "rules of the project\n"
    );
    assert!(!worktree.facts().await.unwrap().dirty, "git sees nothing new");

    write(&worktree.path, "CLAUDE.local.md", "tracked now");
    git(&worktree.path, &["add", "--force", "CLAUDE.local.md"]).await;
    let error = worktree
        .write_persona(PERSONA_FILES, &block("x"))
        .await
        .unwrap_err();
    assert!(matches!(error, WorktreeError::PersonaPlace { .. }), "{error}");
}

#[tokio::test]
async fn a_persona_is_not_written_through_a_link_out_of_the_worktree() {
    let place = Place::new().await;
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, place.top().join(".claude")).unwrap();
    git(place.top(), &["add", "--all"]).await;
    git(place.top(), &["commit", "--quiet", "-m", "a link"]).await;
    let worktree = place.worktree("fe-1").await;
    let file = worktree.write_persona(PERSONA_FILES, &block("x")).await.unwrap();
    assert_eq!(file, worktree.path.join("CLAUDE.local.md"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn before_a_removal_everything_is_kept_untracked_files_too() {
    let place = Place::new().await;
    let before = users_view(place.top()).await;
    let worktree = place.worktree("fe-1").await;
    worktree.write_persona(PERSONA_FILES, &block("x")).await.unwrap();
    write(&worktree.path, "ui/app.js", "changed\n");
    write(&worktree.path, "staged.txt", "staged\n");
    git(&worktree.path, &["add", "staged.txt"]).await;
    write(&worktree.path, "notes/새 파일.txt", "untracked\n");
    fs::remove_file(worktree.path.join("README.md")).unwrap();
    write(&worktree.path, "node_modules/x.js", "ignored\n");

    let kept = worktree.remove(session(7)).await.unwrap().unwrap();

    assert!(!worktree.path.exists());
    assert_eq!(kept.reference, format!("refs/semo/preserved/{}", session(7)));
    assert_eq!(
        git(place.top(), &["rev-parse", &kept.reference]).await,
        kept.commit
    );
    let parent = git(place.top(), &["rev-parse", &format!("{}^", kept.reference)]).await;
    assert_eq!(
        Some(&parent),
        worktree.base.as_ref(),
        "it stands on the HEAD of that moment"
    );
    let changes = git(place.top(), &["diff", "--name-status", "main", &kept.reference]).await;
    assert_eq!(
        changes,
        "D\tREADME.md\nA\tnotes/새 파일.txt\nA\tstaged.txt\nM\tui/app.js"
    );
    assert_eq!(
        git(place.top(), &["show", &format!("{}:staged.txt", kept.reference)]).await,
        "staged"
    );
    assert_eq!(users_view(place.top()).await, before);
    assert_eq!(
        git(place.top(), &["branch", "--list", "semo/*"]).await,
        "",
        "a branch without work goes too"
    );
}

#[tokio::test]
async fn keeping_the_state_touches_neither_files_nor_index_nor_branch() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "staged.txt", "staged\n");
    git(&worktree.path, &["add", "staged.txt"]).await;
    write(&worktree.path, "untracked.txt", "untracked\n");
    let before = (
        users_view(&worktree.path).await,
        git(&worktree.path, &["rev-parse", "HEAD"]).await,
    );
    let first = worktree.preserve(session(1)).await.unwrap().unwrap();
    assert_eq!(before.0, users_view(&worktree.path).await);
    assert_eq!(before.1, git(&worktree.path, &["rev-parse", "HEAD"]).await);
    write(&worktree.path, "untracked.txt", "more\n");
    let second = worktree.preserve(session(1)).await.unwrap().unwrap();
    assert_ne!(first.commit, second.commit, "the newest state counts");
}

#[tokio::test]
async fn what_branches_hold_anyway_is_not_kept_twice_and_work_keeps_its_branch() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "ui/app.js", "// committed\n");
    git(&worktree.path, &["commit", "--quiet", "-a", "-m", "work"]).await;
    let head = git(&worktree.path, &["rev-parse", "HEAD"]).await;
    assert_eq!(worktree.remove(session(1)).await.unwrap(), None);
    assert_eq!(
        git(place.top(), &["rev-parse", "semo/fe-1"]).await,
        head,
        "the work is still on its branch"
    );
}

#[tokio::test]
async fn commits_on_no_branch_are_kept() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(&worktree.path, &["switch", "--quiet", "--detach"]).await;
    write(&worktree.path, "ui/app.js", "// committed\n");
    git(&worktree.path, &["commit", "--quiet", "-a", "-m", "work"]).await;
    let head = git(&worktree.path, &["rev-parse", "HEAD"]).await;
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    let parent = git(place.top(), &["rev-parse", &format!("{}^", kept.commit)]).await;
    assert_eq!(parent, head);
}

#[tokio::test]
async fn a_repository_inside_stops_the_removal() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(
        &worktree.path,
        &["clone", "--quiet", place.top().to_str().unwrap(), "vendor/copy"],
    )
    .await;
    let error = worktree.remove(session(1)).await.unwrap_err();
    assert!(
        matches!(&error, WorktreeError::InnerRepository { inner, .. } if inner == "vendor/copy"),
        "{error}"
    );
    assert!(worktree.path.join("vendor/copy/README.md").exists());
}

#[tokio::test]
async fn only_a_worktree_of_ours_is_found_again_and_removed() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let again = place.repository.worktree(&worktree.path).await.unwrap();
    assert_eq!(again, worktree);
    let users = place.dir.path().join("users-own");
    git(
        place.top(),
        &["worktree", "add", "--quiet", users.to_str().unwrap()],
    )
    .await;
    let other = Place::new().await;
    let foreign = other.worktree("fe-1").await;
    for path in [
        place.top(),
        &users,
        other.top(),
        &foreign.path,
        place.dir.path(),
        &worktree.path.join("ui"),
        Path::new("/nowhere"),
    ] {
        let error = place.repository.worktree(path).await.unwrap_err();
        assert!(
            matches!(error, WorktreeError::WrongPlace { .. }),
            "{}: {error}",
            path.display()
        );
    }
}

#[tokio::test]
async fn a_worktree_whose_agent_has_left_the_branch_is_still_known_by_what_it_was_made_as() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(
        &worktree.path,
        &["switch", "--quiet", "--create", "feature/login"],
    )
    .await;
    git(
        &worktree.path,
        &["commit", "--quiet", "--allow-empty", "-m", "work"],
    )
    .await;
    let again = place.repository.worktree(&worktree.path).await.unwrap();
    assert_eq!((&again.branch, &again.base), (&worktree.branch, &worktree.base));
    assert_eq!(
        again.facts().await.unwrap().branch.as_deref(),
        Some("feature/login")
    );
    assert_eq!(
        again.remove(session(1)).await.unwrap(),
        None,
        "its branch holds the work"
    );
    let branches = git(place.top(), &["branch", "--format=%(refname:short)"]).await;
    assert_eq!(
        branches, "feature/login\nmain",
        "the empty one went, the one with work stays"
    );
}

#[tokio::test]
async fn facts_tell_what_changed_since_the_start() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let clean = worktree.facts().await.unwrap();
    assert_eq!(
        (clean.dirty, clean.files_changed, clean.commits, clean.unpushed),
        (false, 0, 0, None)
    );
    assert_eq!(clean.head, worktree.base);

    write(&worktree.path, "server/new.js", "one\ntwo\n");
    git(&worktree.path, &["add", "--all"]).await;
    git(&worktree.path, &["commit", "--quiet", "-m", "work"]).await;
    write(&worktree.path, "server/new.js", "one\n");
    write(&worktree.path, "notes/a.txt", "x");
    let facts = worktree.facts().await.unwrap();
    assert_eq!(
        (
            facts.commits,
            facts.files_changed,
            facts.insertions,
            facts.deletions
        ),
        (1, 2, 1, 0)
    );
    assert_eq!((facts.dirty, facts.untracked), (true, 1));
    assert_ne!(facts.head, worktree.base);
}

#[tokio::test]
async fn what_a_turn_changed_is_told_without_what_lay_there_before() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let path = worktree.path.as_path();
    write(path, "before.txt", "old\nwork\n");
    write(path, "README.md", "changed before\n");
    let index = git(path, &["status", "--porcelain"]).await;
    let before = crate::tree(path).await.unwrap();
    assert_eq!(git(path, &["status", "--porcelain"]).await, index);
    assert_eq!(before, crate::tree(path).await.unwrap());
    let told = async || {
        let after = crate::tree(path).await.unwrap();
        let made = crate::changes(path, &before, &after).await.unwrap();
        (made.files, made.insertions, made.deletions)
    };
    assert_eq!(told().await, (0, 0, 0), "the turn has done nothing");

    git(path, &["add", "--all"]).await;
    git(path, &["commit", "--quiet", "-m", "work"]).await;
    assert_eq!(
        told().await,
        (0, 0, 0),
        "committing what was there changes no file"
    );

    write(path, "new.txt", "one\ntwo\nthree\n");
    write(path, "before.txt", "old\n");
    git(path, &["add", "before.txt"]).await;
    git(path, &["commit", "--quiet", "-m", "more"]).await;
    std::fs::remove_file(path.join("README.md")).unwrap();
    let (files, insertions, _) = told().await;
    assert_eq!((files, insertions), (3, 3));
    let folder = git(path, &["rev-parse", "--absolute-git-dir"]).await;
    let mut left = std::fs::read_dir(folder).unwrap().flatten();
    assert!(!left.any(|entry| entry.file_name().to_string_lossy().starts_with("semo-index")));
}

#[tokio::test]
async fn the_state_of_too_much_that_is_new_is_not_known() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let dump = std::fs::File::create(worktree.path.join("dump.bin")).unwrap();
    dump.set_len(crate::FACT_BYTES_MAX + 1).unwrap();
    let error = crate::tree(&worktree.path).await.unwrap_err();
    assert!(
        matches!(error, crate::WorktreeError::TooLarge { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn facts_tell_what_is_not_pushed() {
    let place = Place::new().await;
    git(
        place.dir.path(),
        &["clone", "--quiet", "--bare", "project", "origin.git"],
    )
    .await;
    git(place.top(), &["remote", "add", "origin", "../origin.git"]).await;
    git(place.top(), &["fetch", "--quiet", "origin"]).await;
    let worktree = place.worktree("fe-1").await;
    assert_eq!(worktree.facts().await.unwrap().unpushed, Some(0));
    git(
        &worktree.path,
        &["commit", "--quiet", "--allow-empty", "-m", "work"],
    )
    .await;
    assert_eq!(worktree.facts().await.unwrap().unpushed, Some(1));
    let origin = place.dir.path().join("origin.git");
    git(
        &worktree.path,
        &["push", "--quiet", origin.to_str().unwrap(), "HEAD:refs/heads/x"],
    )
    .await;
    git(place.top(), &["fetch", "--quiet", "origin"]).await;
    assert_eq!(worktree.facts().await.unwrap().unpushed, Some(0));
}

#[tokio::test]
async fn the_sample_is_made_once_and_a_users_folder_is_never_written_to() {
    let place = Place::new().await;
    assert_eq!(git(place.top(), &["rev-list", "--count", "HEAD"]).await, "1");
    for folder in ["ui", "server", "tests"] {
        assert!(place.top().join(folder).is_dir(), "{folder}");
    }
    write(place.top(), "README.md", "mine now");
    sample_repository(place.top()).await.unwrap();
    assert_eq!(read(place.top().join("README.md")), "mine now");

    let users = place.dir.path().join("users");
    write(&users, "diary.txt", "dear diary");
    let error = sample_repository(&users).await.unwrap_err();
    assert!(matches!(error, WorktreeError::NotGit { .. }), "{error}");
    assert_eq!(fs::read_dir(&users).unwrap().count(), 1);
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for() {
    let place = Place::new().await;
    let held = crate::lock::take(place.repository.common_dir(), "test")
        .await
        .unwrap();
    let spec = place.spec("fe-1");
    let making = place.repository.create(&spec);
    tokio::pin!(making);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut making).await;
    assert!(
        early.is_err(),
        "nothing is made while another changes the repository"
    );
    assert!(!place.dir.path().join("worktrees/fe-1").exists());
    drop(held);
    making.await.unwrap();
}

//! The list of kept states, and bringing one back.

use super::*;

#[tokio::test]
async fn kept_states_are_listed_with_what_one_needs_to_know() {
    let place = Place::new().await;
    assert_eq!(place.repository.preserved().await.unwrap(), vec![]);
    let removed = place.worktree("fe-1").await;
    write(&removed.path, "ui/app.js", "// changed\n");
    write(&removed.path, "new.txt", "new\n");
    removed.remove(session(1)).await.unwrap();
    let ended = place.worktree("be-1").await;
    write(&ended.path, "README.md", "changed\n");
    let kept = ended.preserve(session(2)).await.unwrap().unwrap();

    let mut list = place.repository.preserved().await.unwrap();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    let [first, second] = &list[..] else {
        panic!("{list:?}")
    };
    assert_eq!(first.name, session(1).to_string());
    assert_eq!(first.branch.as_deref(), Some("semo/fe-1"));
    assert_eq!(
        (first.files_changed, first.why.as_str()),
        (2, "its worktree was removed")
    );
    assert!(first.kept_at > 1_500_000_000, "{first:?}");
    assert_eq!((&second.commit, second.files_changed), (&kept.commit, 1));
    assert!(second.why.contains("not committed"), "{second:?}");
}

#[tokio::test]
async fn a_kept_state_becomes_a_new_branch_with_the_untracked_files() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(
        &worktree.path,
        &[
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            "a commit of the agent",
        ],
    )
    .await;
    write(&worktree.path, "notes/새 파일.txt", "untracked\n");
    worktree.remove(session(1)).await.unwrap();
    let before = users_view(place.top()).await;
    let name = session(1).to_string();

    let restored = place.repository.restore(&name, "rescue/fe-1").await.unwrap();

    assert_eq!(restored.branch, "rescue/fe-1");
    let text = git(place.top(), &["show", "rescue/fe-1:notes/새 파일.txt"]).await;
    assert_eq!(text, "untracked");
    let log = git(place.top(), &["log", "--format=%s", "-3", "rescue/fe-1"]).await;
    assert!(log.contains("a commit of the agent"), "{log}");
    assert_eq!(users_view(place.top()).await, before);
    assert_eq!(
        place.repository.preserved().await.unwrap().len(),
        1,
        "the kept state stays"
    );
}

#[tokio::test]
async fn a_restore_never_writes_over_anything() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "new.txt", "new");
    worktree.remove(session(1)).await.unwrap();
    let refs = git(place.top(), &["for-each-ref"]).await;
    let name = session(1).to_string();
    let main = place.repository.restore(&name, "main").await.unwrap_err();
    assert!(matches!(main, WorktreeError::BranchTaken { .. }), "{main}");
    for branch in ["-f", "a b", "@{-1}", "main/x", ""] {
        assert!(
            place.repository.restore(&name, branch).await.is_err(),
            "{branch:?}"
        );
    }
    for name in ["../../heads/main", "", "no-such", "x^{tree}", "*", "a b"] {
        let error = place.repository.restore(name, "back").await.unwrap_err();
        assert!(
            matches!(error, WorktreeError::NotPreserved { .. }),
            "{name:?}: {error}"
        );
    }
    assert_eq!(git(place.top(), &["for-each-ref"]).await, refs);
}

#[tokio::test]
async fn the_same_state_is_kept_once() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "new.txt", "new");
    let first = worktree.preserve(session(1)).await.unwrap();
    let second = worktree.preserve(session(1)).await.unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn changes_that_flags_hide_from_git_status_are_kept() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(
        &worktree.path,
        &["update-index", "--assume-unchanged", "README.md"],
    )
    .await;
    git(
        &worktree.path,
        &["update-index", "--skip-worktree", "package.json"],
    )
    .await;
    write(&worktree.path, "README.md", "hidden work\n");
    write(&worktree.path, "package.json", "{\"hidden\": 2}\n");
    assert!(
        !worktree.facts().await.unwrap().dirty,
        "git status does not see it"
    );
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    for (file, text) in [("README.md", "hidden work"), ("package.json", "{\"hidden\": 2}")] {
        assert_eq!(
            git(place.top(), &["show", &format!("{}:{file}", kept.commit)]).await,
            text
        );
    }
}

#[tokio::test]
async fn a_sparse_check_out_is_kept_without_looking_like_a_great_deletion() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(&worktree.path, &["sparse-checkout", "set", "ui"]).await;
    assert!(!worktree.path.join("server").exists());
    write(&worktree.path, "ui/new.js", "new\n");
    let kept = worktree.preserve(session(1)).await.unwrap().unwrap();
    let changes = git(place.top(), &["diff", "--name-status", "main", &kept.commit]).await;
    assert_eq!(changes, "A\tui/new.js");
}

#[tokio::test]
async fn what_the_project_ignores_goes_and_a_mountain_of_new_data_stays_where_it_is() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let large = |name: &str| {
        let file = worktree.path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::File::create(file)
            .unwrap()
            .set_len(NEW_BYTES_MAX + 1)
            .unwrap();
    };
    large("dump.bin");
    let error = worktree.remove(session(1)).await.unwrap_err();
    assert!(matches!(error, WorktreeError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("1025 MiB"), "{error}");
    assert!(worktree.path.join("dump.bin").exists(), "nothing is lost");
    fs::remove_file(worktree.path.join("dump.bin")).unwrap();
    large("node_modules/huge.bin");
    worktree.remove(session(1)).await.unwrap();
    assert!(!worktree.path.exists());
}

#[tokio::test]
async fn what_only_the_index_holds_is_kept_beside_the_files() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "README.md", "staged words\n");
    write(&worktree.path, "gone.txt", "staged, then deleted\n");
    git(&worktree.path, &["add", "README.md", "gone.txt"]).await;
    // The files are as HEAD has them: only the index knows.
    fs::remove_file(worktree.path.join("gone.txt")).unwrap();
    let before = git(place.top(), &["show", "main:README.md"]).await;
    write(&worktree.path, "README.md", &format!("{before}\n"));
    let index = git(&worktree.path, &["ls-files", "--stage"]).await;
    let first = worktree.preserve(session(1)).await.unwrap().unwrap();
    assert_eq!(
        git(&worktree.path, &["ls-files", "--stage"]).await,
        index,
        "the index is only read"
    );
    let again = worktree.remove(session(1)).await.unwrap().unwrap();
    assert_eq!(first, again, "the same state is kept once");
    let held = |file: &str| format!("{}^2:{file}", first.commit);
    assert_eq!(
        git(place.top(), &["show", &held("README.md")]).await,
        "staged words"
    );
    assert_eq!(
        git(place.top(), &["show", &held("gone.txt")]).await,
        "staged, then deleted"
    );
    let name = session(1).to_string();
    place.repository.restore(&name, "rescue").await.unwrap();
    assert_eq!(
        git(place.top(), &["show", "rescue:README.md"]).await,
        before,
        "what comes back is the folder as it was"
    );
}

#[tokio::test]
async fn both_sides_of_a_conflict_are_kept() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(&worktree.path, &["checkout", "--quiet", "-b", "other"]).await;
    write(&worktree.path, "README.md", "theirs\n");
    git(&worktree.path, &["commit", "--quiet", "-am", "theirs"]).await;
    git(&worktree.path, &["checkout", "--quiet", "semo/fe-1"]).await;
    write(&worktree.path, "README.md", "ours\n");
    git(&worktree.path, &["commit", "--quiet", "-am", "ours"]).await;
    let merge = Git::new(&worktree.path, "merge").args(["merge", "other"]);
    assert!(!merge.answer().await.unwrap().ok(), "a conflict");
    write(&worktree.path, "README.md", "half solved\n");
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    for (file, text) in [
        ("^2:README.md~ours", "ours"),
        ("^2:README.md~theirs", "theirs"),
        (":README.md", "half solved"),
    ] {
        let object = format!("{}{file}", kept.commit);
        assert_eq!(git(place.top(), &["show", &object]).await, text);
    }
}

#[tokio::test]
async fn commits_that_only_a_reflog_holds_are_kept_with_those_before_them() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    for text in ["one", "two"] {
        write(&worktree.path, "work.txt", text);
        git(&worktree.path, &["add", "work.txt"]).await;
        git(&worktree.path, &["commit", "--quiet", "-m", text]).await;
    }
    let lost = git(&worktree.path, &["rev-parse", "HEAD"]).await;
    git(&worktree.path, &["reset", "--quiet", "--hard", "HEAD~2"]).await;
    assert!(
        !worktree.facts().await.unwrap().dirty,
        "nothing of it is to be seen"
    );
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    let parents = git(place.top(), &["log", "-1", "--format=%P", &kept.commit]).await;
    assert_eq!(
        parents.split_whitespace().nth(1),
        Some(lost.as_str()),
        "{parents}"
    );
    git(place.top(), &["reflog", "expire", "--expire=now", "--all"]).await;
    git(place.top(), &["gc", "--quiet", "--prune=now"]).await;
    assert_eq!(
        git(place.top(), &["show", &format!("{lost}:work.txt")]).await,
        "two"
    );
}

#[tokio::test]
async fn a_later_state_of_the_same_session_leaves_the_earlier_one_in_reach() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "first.txt", "first\n");
    let first = worktree.preserve(session(1)).await.unwrap().unwrap();
    fs::remove_file(worktree.path.join("first.txt")).unwrap();
    write(&worktree.path, "second.txt", "second\n");
    let second = worktree.remove(session(1)).await.unwrap().unwrap();
    assert_ne!(first.commit, second.commit);
    git(place.top(), &["reflog", "expire", "--expire=now", "--all"]).await;
    git(place.top(), &["gc", "--quiet", "--prune=now"]).await;
    for (commit, file) in [(&first.commit, "first.txt"), (&second.commit, "second.txt")] {
        git(place.top(), &["show", &format!("{commit}:{file}")]).await;
    }
    let tree = git(place.top(), &["ls-tree", "--name-only", &second.commit]).await;
    assert!(
        !tree.contains("first.txt") && tree.contains("second.txt"),
        "{tree}"
    );
}

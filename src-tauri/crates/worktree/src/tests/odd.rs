//! Repositories that are not as one expects, and links that lead elsewhere.

use std::os::unix::fs::symlink;

use super::*;

/// A folder beside everything, which nothing may ever touch.
fn canary(place: &Place) -> (PathBuf, Vec<(String, String)>) {
    let folder = place.dir.path().join("canary");
    for name in ["a.txt", "deep/b.txt", ".git-like"] {
        write(&folder, name, "untouched");
    }
    let seen = listing(&folder);
    (folder, seen)
}

/// Every path below a folder, with its text or where it leads.
fn listing(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap_or_default(),
            ));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn links_out_of_the_worktree_are_kept_as_links_and_nothing_outside_is_touched() {
    let place = Place::new().await;
    let (outside, before) = canary(&place);
    let worktree = place.worktree("fe-1").await;
    symlink(&outside, worktree.path.join("to-folder")).unwrap();
    symlink(outside.join("a.txt"), worktree.path.join("to-file")).unwrap();
    symlink("/nowhere/at/all", worktree.path.join("to-nothing")).unwrap();
    symlink("..", worktree.path.join("up")).unwrap();

    let kept = worktree.remove(session(1)).await.unwrap().unwrap();

    assert!(!worktree.path.exists());
    assert_eq!(listing(&outside), before);
    let entries = git(place.top(), &["ls-tree", &kept.commit]).await;
    assert_eq!(entries.matches("120000 blob").count(), 4, "{entries}");
    let target = git(place.top(), &["show", &format!("{}:to-file", kept.commit)]).await;
    assert_eq!(target, outside.join("a.txt").display().to_string());
}

#[tokio::test]
async fn a_worktree_that_was_replaced_by_a_link_is_neither_kept_nor_removed() {
    let place = Place::new().await;
    let (outside, before) = canary(&place);
    let one = place.worktree("one").await;
    let two = place.worktree("two").await;
    write(&two.path, "work.txt", "of the other session");
    fs::rename(&one.path, place.dir.path().join("moved")).unwrap();
    for target in [two.path.as_path(), outside.as_path(), place.top(), Path::new("/")] {
        symlink(target, &one.path).unwrap();
        for error in [
            one.remove(session(1)).await.unwrap_err(),
            one.preserve(session(1)).await.unwrap_err(),
            one.write_persona(PERSONA_FILES, &block("x")).await.unwrap_err(),
        ] {
            assert!(
                matches!(error, WorktreeError::WrongPlace { .. }),
                "{}: {error}",
                target.display()
            );
        }
        fs::remove_file(&one.path).unwrap();
    }
    assert_eq!(read(two.path.join("work.txt")), "of the other session");
    assert_eq!(listing(&outside), before);
    assert!(place.repository.preserved().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_that_is_no_longer_the_expected_worktree_is_not_removed() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let gone = place.worktree("gone").await;
    fs::remove_dir_all(&gone.path).unwrap();
    assert!(matches!(
        gone.remove(session(2)).await.unwrap_err(),
        WorktreeError::WrongPlace { .. }
    ));
    // An agent has deleted `.git` and made a repository of its own: whose folder is it now?
    fs::remove_file(worktree.path.join(".git")).unwrap();
    git(&worktree.path, &["init", "--quiet"]).await;
    let error = worktree.remove(session(1)).await.unwrap_err();
    assert!(matches!(error, WorktreeError::WrongPlace { .. }), "{error}");
    assert!(worktree.path.join("README.md").is_file());
}

#[tokio::test]
async fn a_worktree_that_was_used_again_has_its_own_state_kept_each_time() {
    let place = Place::new().await;
    let first = place.worktree("fe-1").await;
    write(&first.path, "one.txt", "1");
    first.remove(session(1)).await.unwrap().unwrap();
    let second = place.worktree("fe-1").await;
    assert!(!second.path.join("one.txt").exists());
    write(&second.path, "two.txt", "2");
    second.remove(session(2)).await.unwrap().unwrap();
    for (n, name) in [(1, "one.txt"), (2, "two.txt")] {
        let files = git(
            place.top(),
            &[
                "ls-tree",
                "--name-only",
                &format!("refs/semo/preserved/{}", session(n)),
            ],
        )
        .await;
        assert!(files.lines().any(|file| file == name), "{files}");
    }
}

#[tokio::test]
async fn bare_shallow_and_detached_repositories_give_worktrees_and_keep_work() {
    let place = Place::new().await;
    for text in ["one", "two"] {
        git(place.top(), &["commit", "--quiet", "--allow-empty", "-m", text]).await;
    }
    let url = format!("file://{}", place.top().display());
    git(
        place.dir.path(),
        &["clone", "--quiet", "--bare", &url, "bare.git"],
    )
    .await;
    git(
        place.dir.path(),
        &["clone", "--quiet", "--depth=1", &url, "shallow"],
    )
    .await;
    git(place.dir.path(), &["clone", "--quiet", &url, "detached"]).await;
    git(
        &place.dir.path().join("detached"),
        &["switch", "--quiet", "--detach", "HEAD~1"],
    )
    .await;
    for (n, name) in ["bare.git", "shallow", "detached"].into_iter().enumerate() {
        let repository = Repository::open(&place.dir.path().join(name)).await.unwrap();
        let spec = place.spec(&format!("w-{n}"));
        let worktree = repository.create(&spec).await.unwrap();
        worktree.write_persona(PERSONA_FILES, &block("x")).await.unwrap();
        write(&worktree.path, "untracked.txt", name);
        git(
            &worktree.path,
            &["commit", "--quiet", "--allow-empty", "-m", "work"],
        )
        .await;
        let kept = worktree.remove(session(n as u128)).await.unwrap().unwrap();
        let text = git(
            repository.root(),
            &["show", &format!("{}:untracked.txt", kept.commit)],
        )
        .await;
        assert_eq!(text, name);
        let restored = repository
            .restore(&session(n as u128).to_string(), "back")
            .await
            .unwrap();
        assert_eq!(
            git(repository.root(), &["rev-parse", "back"]).await,
            restored.commit,
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_work_of_an_agent_that_has_no_commit_to_stand_on_is_kept_too() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    git(&worktree.path, &["switch", "--quiet", "--orphan", "fresh"]).await;
    write(&worktree.path, "new.txt", "new");
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    assert_eq!(
        git(place.top(), &["ls-tree", "--name-only", &kept.commit]).await,
        "new.txt"
    );
}

/// A project with a submodule at `lib`.
async fn with_submodule() -> Place {
    let place = Place::new().await;
    git(place.dir.path(), &["init", "--quiet", "library"]).await;
    let library = place.dir.path().join("library");
    write(&library, "lib.js", "1");
    git(&library, &["add", "--all"]).await;
    git(&library, &["commit", "--quiet", "-m", "library"]).await;
    let add = [
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        library.to_str().unwrap(),
        "lib",
    ];
    git(place.top(), &add).await;
    git(place.top(), &["commit", "--quiet", "-m", "with a library"]).await;
    place
}

async fn fill_submodule(worktree: &Worktree) {
    let update = [
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "update",
        "--init",
    ];
    git(&worktree.path, &update).await;
}

#[tokio::test]
async fn submodules_without_work_go_with_the_worktree() {
    let place = with_submodule().await;
    let empty = place.worktree("empty").await;
    write(&empty.path, "work.txt", "work");
    empty.remove(session(1)).await.unwrap().unwrap();
    assert!(!empty.path.exists());

    let filled = place.worktree("filled").await;
    fill_submodule(&filled).await;
    assert!(filled.path.join("lib/lib.js").is_file());
    assert_eq!(filled.remove(session(2)).await.unwrap(), None);
    assert!(!filled.path.exists());
}

#[tokio::test]
async fn a_submodule_with_work_in_it_stops_the_removal() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 2] = [
        ("changed", |lib| write(lib, "lib.js", "2")),
        ("untracked", |lib| write(lib, "new.js", "2")),
    ];
    let place = with_submodule().await;
    for (name, change) in changes {
        let worktree = place.worktree(name).await;
        fill_submodule(&worktree).await;
        change(&worktree.path.join("lib"));
        let error = worktree.remove(session(1)).await.unwrap_err();
        assert!(
            matches!(error, WorktreeError::InnerRepository { .. }),
            "{name}: {error}"
        );
        assert!(worktree.path.join("lib").is_dir());
    }
    for (name, args) in [
        (
            "committed",
            &["commit", "--quiet", "--allow-empty", "-m", "work"][..],
        ),
        ("stashed", &["stash", "push", "--quiet"][..]),
    ] {
        let worktree = place.worktree(name).await;
        fill_submodule(&worktree).await;
        let lib = worktree.path.join("lib");
        write(&lib, "lib.js", "2");
        git(&lib, args).await;
        git(&lib, &["checkout", "--quiet", "--force", "HEAD"]).await;
        let error = worktree.remove(session(1)).await.unwrap_err();
        assert!(
            matches!(error, WorktreeError::InnerRepository { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_repository_that_an_agent_began_inside_stops_the_removal() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    fs::create_dir(worktree.path.join("inner")).unwrap();
    git(&worktree.path.join("inner"), &["init", "--quiet"]).await;
    write(&worktree.path, "inner/a.txt", "a");
    assert!(worktree.remove(session(1)).await.is_err());
    assert_eq!(read(worktree.path.join("inner/a.txt")), "a");
}

//! Many at once: in one process, and in several.

use std::collections::HashSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_sessions_ask_for_worktrees_at_once_and_each_gets_its_own() {
    let place = Place::new().await;
    let before = users_view(place.top()).await;
    let names: Vec<String> = (0..200).map(|n| format!("s-{n}")).collect();

    let made = futures_all(names.iter().map(|name| place.worktree(name)).collect()).await;

    let paths: HashSet<_> = made.iter().map(|worktree| worktree.path.clone()).collect();
    let branches: HashSet<_> = made.iter().map(|worktree| worktree.branch.clone()).collect();
    assert_eq!((paths.len(), branches.len()), (200, 200));
    for worktree in &made {
        assert!(worktree.path.join("README.md").is_file());
        assert_eq!(
            read(worktree.path.join(".git")).matches("gitdir:").count(),
            1,
            "it is a worktree of its own"
        );
    }
    let listed = git(place.top(), &["worktree", "list", "--porcelain"]).await;
    assert_eq!(listed.matches("worktree ").count(), 201);
    assert_eq!(users_view(place.top()).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_want_the_same_name_one_gets_it_and_it_stays_whole() {
    let place = Place::new().await;
    let specs: Vec<WorktreeSpec> = (0..12)
        .map(|n| WorktreeSpec {
            branch: format!("semo/wish-{n}"),
            ..place.spec("same")
        })
        .collect();
    let results = futures_all(specs.iter().map(|spec| place.repository.create(spec)).collect()).await;
    let made: Vec<&Worktree> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(made.len(), 1);
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(error, WorktreeError::Occupied { .. }), "{error}");
    }
    assert!(
        made[0].path.join("README.md").is_file(),
        "the losers have not undone it"
    );
    let branches = git(
        place.top(),
        &["branch", "--list", "semo/*", "--format=%(refname:short)"],
    )
    .await;
    assert_eq!(branches, made[0].branch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn some_come_while_others_go() {
    let place = Place::new().await;
    let place_ref = &place;
    let going: Vec<Worktree> = futures_all(
        (0..10)
            .map(|n| async move { place_ref.worktree(&format!("old-{n}")).await })
            .collect(),
    )
    .await;
    for worktree in &going {
        write(&worktree.path, "untracked.txt", &worktree.branch);
    }
    let steps: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = (0..10)
        .flat_map(|n| {
            let (place, worktree) = (&place, &going[n]);
            let come: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                place.worktree(&format!("new-{n}")).await;
            });
            let go: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                worktree.remove(session(n as u128)).await.unwrap().unwrap();
            });
            [come, go]
        })
        .collect();
    futures_all(steps).await;
    let kept = place.repository.preserved().await.unwrap();
    assert_eq!(kept.len(), 10);
    assert_eq!(
        fs::read_dir(place.dir.path().join("worktrees")).unwrap().count(),
        10
    );
}

/// Another program of ours holds the repository: it is waited for, and its end frees it.
#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_freed_by_its_death() {
    let place = Place::new().await;
    let lock = place.repository.common_dir().join("semo.lock");
    #[allow(
        clippy::disallowed_methods,
        reason = "a second process is what this test is about"
    )]
    let mut other = tokio::process::Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo held; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = [0u8; 5];
    tokio::io::AsyncReadExt::read_exact(other.stdout.as_mut().unwrap(), &mut line)
        .await
        .unwrap();
    let spec = place.spec("fe-1");
    let making = place.repository.create(&spec);
    tokio::pin!(making);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut making).await;
    assert!(
        early.is_err(),
        "nothing is made while another process changes the repository"
    );
    // `flock` and the program it started both hold the file: the group of the one is ended by ending both.
    let group = other.id().unwrap();
    let children = read(format!("/proc/{group}/task/{group}/children"));
    for pid in children.split_whitespace().map(|pid| pid.parse().unwrap()) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    other.kill().await.unwrap();
    making.await.unwrap();
}

#[tokio::test]
async fn locks_that_git_left_lying_about_do_not_stop_us() {
    let place = Place::new().await;
    let common = place.top().join(".git");
    for lock in ["index.lock", "config.lock"] {
        fs::write(common.join(lock), "").unwrap();
    }
    let worktree = place.worktree("fe-1").await;
    write(&worktree.path, "untracked.txt", "work");
    let own = git(&worktree.path, &["rev-parse", "--absolute-git-dir"]).await;
    fs::write(Path::new(&own).join("index.lock"), "").unwrap();
    let kept = worktree.remove(session(1)).await.unwrap().unwrap();
    assert!(!worktree.path.exists());
    let text = git(place.top(), &["show", &format!("{}:untracked.txt", kept.commit)]).await;
    assert_eq!(text, "work");
    for lock in ["index.lock", "config.lock"] {
        assert!(common.join(lock).exists(), "{lock} is somebody else's");
    }
}

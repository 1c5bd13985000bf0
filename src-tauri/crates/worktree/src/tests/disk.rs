//! A full disk: the kernel's limit on the size of files makes every larger write fail for a process of our own, which
//! runs this very test once more.

use super::*;

/// Says to the inner run where to work.
const PLACE: &str = "SEMO_TEST_FULL_DISK";
/// Larger than the limit of the inner run, and not to be compressed below it.
const LARGE_BYTES: usize = 200 * 1024;

fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(LARGE_BYTES)
    .collect()
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_left_half_made_and_nothing_is_removed() {
    #[allow(
        clippy::disallowed_methods,
        reason = "tells the inner run of this test from the outer one"
    )]
    let inner = std::env::var(PLACE);
    if let Ok(folder) = inner {
        return with_a_full_disk(Path::new(&folder)).await;
    }
    let place = Place::new().await;
    fs::write(place.top().join("large.bin"), noise()).unwrap();
    git(place.top(), &["add", "--all"]).await;
    git(place.top(), &["commit", "--quiet", "-m", "large"]).await;
    let worktree = place.worktree("fe-1").await;
    let mut other = noise();
    other.reverse();
    fs::write(worktree.path.join("untracked.bin"), &other).unwrap();
    let before = users_view(place.top()).await;
    let refs = git(place.top(), &["for-each-ref"]).await;

    let script = "trap '' XFSZ; ulimit -f 100; exec \"$@\"";
    let own = std::env::current_exe().unwrap();
    #[allow(
        clippy::disallowed_methods,
        reason = "a process with limits of its own is what this test is about"
    )]
    let output = tokio::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(own)
        .args([
            "--exact",
            "tests::disk::on_a_full_disk_nothing_is_left_half_made_and_nothing_is_removed",
        ])
        .env(PLACE, place.dir.path())
        .output()
        .await
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(fs::read(worktree.path.join("untracked.bin")).unwrap(), other);
    assert!(
        !place.dir.path().join("worktrees/fe-2").exists(),
        "a half-made worktree is taken away"
    );
    assert_eq!(git(place.top(), &["for-each-ref"]).await, refs);
    assert_eq!(
        git(place.top(), &["worktree", "list", "--porcelain"])
            .await
            .matches("worktree ")
            .count(),
        2
    );
    assert_eq!(users_view(place.top()).await, before);
    // With room again, everything goes its way.
    worktree.remove(session(1)).await.unwrap().unwrap();
    place.worktree("fe-2").await;
}

async fn with_a_full_disk(folder: &Path) {
    let repository = Repository::open(&folder.join("project")).await.unwrap();
    let spec = WorktreeSpec {
        root: folder.join("worktrees"),
        name: "fe-2".into(),
        branch: "semo/fe-2".into(),
        base: None,
    };
    let error = repository.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("unable to write file large.bin"), "{error}");
    let worktree = repository.worktree(&folder.join("worktrees/fe-1")).await.unwrap();
    for error in [
        worktree.preserve(session(1)).await.unwrap_err(),
        worktree.remove(session(1)).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("unable to write"), "{error}");
    }
    assert!(worktree.path.join("untracked.bin").exists());
}

//! The guard with real shells: whatever happens, a thaw follows.

use super::*;

struct Rig {
    dir: tempfile::TempDir,
    ctx: Context,
    marker: PathBuf,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("frozen.json");
    Rig { dir, ctx: disk::real::context(), marker }
}

impl Rig {
    /// Hooks that write what they do into a file.
    fn hooks(&self, freeze: &str, thaw: &str, seconds: u64) -> Hooks {
        let log = quoted(&self.dir.path().join("log"));
        let with_log = |word: &str, then: &str| format!("echo {word} >>{log}; {then}");
        let (freeze, thaw) = (with_log("freeze", freeze), with_log("thaw", thaw));
        Hooks::new(&freeze, Some(&thaw), Duration::from_secs(seconds)).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn until_log_is(&self, wanted: &str) {
        let same = async {
            while self.log() != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(60), same).await.is_ok(),
            "{}",
            self.log()
        );
    }
}

#[tokio::test]
async fn a_thaw_follows_the_cut_and_the_marker_goes() {
    let rig = rig();
    let frozen = rig.hooks("true", "true", 60).freeze(&rig.ctx, &rig.marker).await.unwrap();
    assert_eq!(rig.log(), "freeze\n");
    assert!(rig.marker.exists());
    assert_eq!(frozen.thaw().await.unwrap(), Thawed { in_time: true });
    assert_eq!(rig.log(), "freeze\nthaw\n");
    assert!(!rig.marker.exists());
}

#[tokio::test]
async fn the_guard_thaws_when_the_time_is_over_and_says_so() {
    let rig = rig();
    let frozen = rig.hooks("true", "true", 1).freeze(&rig.ctx, &rig.marker).await.unwrap();
    rig.until_log_is("freeze\nthaw\n").await;
    assert_eq!(frozen.thaw().await.unwrap(), Thawed { in_time: false });
    assert_eq!(rig.log(), "freeze\nthaw\n");
}

#[tokio::test]
async fn the_guard_thaws_when_we_are_gone() {
    let rig = rig();
    drop(rig.hooks("true", "true", 600).freeze(&rig.ctx, &rig.marker).await.unwrap());
    rig.until_log_is("freeze\nthaw\n").await;
    assert!(rig.marker.exists());
}

#[tokio::test]
async fn a_freeze_that_is_still_running_when_we_go_is_thawed_after_it() {
    let rig = rig();
    let gate = rig.dir.path().join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done; echo done", quoted(&gate));
    let wait = format!("{wait} >>{}", quoted(&rig.dir.path().join("log")));
    let hooks = rig.hooks(&wait, "true", 60);
    tokio::select! {
        biased;
        () = rig.until_log_is("freeze\n") => {}
        _ = hooks.freeze(&rig.ctx, &rig.marker) => panic!("the freeze waits for the gate"),
    }
    std::fs::write(gate, "").unwrap();
    rig.until_log_is("freeze\ndone\nthaw\n").await;
}

#[tokio::test]
async fn a_failed_freeze_is_thawed_and_quoted() {
    let rig = rig();
    let hooks = rig.hooks("echo no database; exit 7", "true", 60);
    let error = hooks.freeze(&rig.ctx, &rig.marker).await.err().unwrap();
    assert!(error.to_string().contains("exit code 7: no database"), "{error}");
    assert_eq!(rig.log(), "freeze\nthaw\n");
    assert!(!rig.marker.exists());
    let error =
        rig.hooks("sleep 600", "true", 1).freeze(&rig.ctx, &rig.marker).await.err().unwrap();
    assert!(error.to_string().contains("more than 1 s"), "{error}");
}

#[tokio::test]
async fn a_thaw_that_fails_is_tried_again_and_leaves_its_marker() {
    let rig = rig();
    let frozen = rig.hooks("true", "exit 9", 60).freeze(&rig.ctx, &rig.marker).await.unwrap();
    let error = frozen.thaw().await.unwrap_err();
    assert!(error.to_string().contains("exit code 9"), "{error}");
    assert_eq!(rig.log(), "freeze\nthaw\nthaw\nthaw\n");
    assert!(rig.marker.exists());
}

#[tokio::test]
async fn a_start_thaws_what_was_left_over() {
    let rig = rig();
    assert!(!thaw_left_over(&rig.ctx, &rig.marker).await.unwrap());
    drop(rig.hooks("true", "true", 60).freeze(&rig.ctx, &rig.marker).await.unwrap());
    rig.until_log_is("freeze\nthaw\n").await;
    assert!(thaw_left_over(&rig.ctx, &rig.marker).await.unwrap());
    assert_eq!(rig.log(), "freeze\nthaw\nthaw\n");
    assert!(!thaw_left_over(&rig.ctx, &rig.marker).await.unwrap());
    std::fs::write(&rig.marker, "{").unwrap();
    assert!(thaw_left_over(&rig.ctx, &rig.marker).await.is_err());
}

#[tokio::test]
async fn a_file_system_frozen_before_a_boot_needs_no_thaw() {
    let rig = rig();
    let thaw = Hook::FsFreeze("/nowhere".into());
    let marker = Marker { thaw, timeout_ms: 1_000, boot_id: "another".to_owned() };
    std::fs::write(&rig.marker, serde_json::to_vec(&marker).unwrap()).unwrap();
    assert!(thaw_left_over(&rig.ctx, &rig.marker).await.unwrap());
    assert!(!rig.marker.exists());
    let boot_id = rig.ctx.boot();
    std::fs::write(&rig.marker, serde_json::to_vec(&Marker { boot_id, ..marker }).unwrap())
        .unwrap();
    assert!(thaw_left_over(&rig.ctx, &rig.marker).await.is_err());
}

#[test]
fn hooks_are_read_and_refused() {
    let timeout = Duration::from_millis(1500);
    let hooks = Hooks::new("fsfreeze:/it's here", None, timeout).unwrap();
    assert_eq!(hooks.timeout, Duration::from_secs(2));
    assert_eq!(hooks.freeze.freeze_command(), r"fsfreeze --freeze '/it'\''s here'");
    assert_eq!(hooks.thaw, hooks.freeze);
    for (freeze, thaw) in
        [("true", None), ("", Some("true")), ("true", Some(" ")), ("fsfreeze:x", None)]
    {
        assert!(Hooks::new(freeze, thaw, timeout).is_err(), "{freeze}");
    }
    let dir = tempfile::tempdir().unwrap();
    let own = [dir.path().to_owned()];
    let freeze = format!("fsfreeze:{}", dir.path().display());
    let error = Hooks::new(&freeze, None, timeout).unwrap().check(&own).unwrap_err();
    assert_eq!(error.code(), "hook-refused");
    assert!(Hooks::new("true", Some(&freeze), timeout).unwrap().check(&own).is_err());
    assert!(Hooks::new("true", Some("true"), timeout).unwrap().check(&own).is_ok());
}

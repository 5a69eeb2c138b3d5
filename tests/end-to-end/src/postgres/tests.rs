//! The tools themselves, on a plain folder: what they have to pass, and what they have to find.

use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        // The user `postgres` has to get through.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Postgres::init(&folder.path().join("data"));
        Cluster { folder }
    }

    fn start(&self) -> Postgres {
        Postgres::start(&self.folder.path().join("data"), &self.folder.path().join("home"))
    }
}

fn panics(what: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(what)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_crash_keeps_what_was_seen_and_an_order_is_no_crash() {
    let cluster = Cluster::new();
    let server = cluster.start();
    assert!(!server.recovered());
    Load::prepare(&server);
    let mut load = Load::start(&server, 1);
    load.wait_for_more(&server, 20, SOON);
    drop(server);
    let log = load.end();
    assert!(log.transactions() >= 16, "{log:?}");

    let server = cluster.start();
    assert!(server.recovered());
    assert_eq!(log.lost(&Load::held(&server, 1)), []);
    assert_eq!(Load::held(&server, 2), Held::default());
    let log = Load::play(&server, 2, 5);
    let held = Load::held(&server, 2);
    assert_eq!((log.transactions(), held.transactions()), (20, 20));
    assert_eq!(log.lost(&held), []);
    server.assert_sound();
    Load::assert_balanced(&server);
    server.stop_and_check_pages();
    assert!(!cluster.start().recovered());
}

#[test]
fn what_does_not_agree_is_found() {
    let cluster = Cluster::new();
    let server = cluster.start();
    Load::prepare(&server);
    let log = Load::play(&server, 1, 5);
    Load::assert_balanced(&server);

    let spoilt = |change: &str, back: &str| {
        server.sql(change);
        let words = panics(|| Load::assert_balanced(&server));
        server.sql(back);
        Load::assert_balanced(&server);
        words
    };
    for (table, id, balance) in [
        ("accounts", "aid", "abalance"),
        ("tellers", "tid", "tbalance"),
        ("branches", "bid", "bbalance"),
    ] {
        let update = |by: &str| {
            format!("UPDATE pgbench_{table} SET {balance} = {balance} {by} WHERE {id} = 1")
        };
        let words = spoilt(&update("+ 1"), &update("- 1"));
        assert!(words.contains(&format!("pgbench_{table}: {id}")), "{words}");
    }
    let words = spoilt("INSERT INTO told VALUES (9, 0, 1)", "DELETE FROM told WHERE run = 9");
    assert!(words.contains("rows of the history and of `told`"), "{words}");

    server.sql("DELETE FROM told WHERE client = 2 AND number = 5");
    let lost: Vec<_> =
        log.lost(&Load::held(&server, 1)).iter().map(|t| (t.client, t.number)).collect();
    assert_eq!(lost, [(2, 5)]);
    server.sql("DELETE FROM told WHERE client = 3 AND number = 4");
    assert!(panics(|| drop(Load::held(&server, 1))).contains("client 3 lost one before its last"));
}

#[test]
fn a_damaged_page_is_found() {
    let cluster = Cluster::new();
    let server = cluster.start();
    Load::prepare(&server);
    let file = server.sql("SELECT pg_relation_filepath('pgbench_accounts')");
    server.stop();
    crate::flip_bit(&cluster.folder.path().join("data").join(file));
    let server = cluster.start();
    assert!(panics(|| server.assert_sound()).contains("pg_amcheck"));
    assert!(panics(|| server.stop_and_check_pages()).contains("pg_checksums"));
}

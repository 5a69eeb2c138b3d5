//! PostgreSQL on xfs on our export, mirrored over a link of 20 ms and 100 Mbit, under load. Its site is lost:
//! the other one is promoted, PostgreSQL starts there, and what it holds is held against what its clients saw
//! committed. Then the old site comes back and the service goes home.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use end_to_end::{
    ClientLog, Load, MountedExport, Postgres, Process, Proxy, Sites, Tool, compare, wait_for,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
/// There and back take 20 ms.
const ONE_WAY: Duration = Duration::from_millis(10);
/// 100 Mbit a second.
const BYTES_A_SECOND: u64 = 12_500_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Primary,
    Secondary,
}

impl Site {
    fn name(self) -> &'static str {
        match self {
            Site::Primary => "primary",
            Site::Secondary => "secondary",
        }
    }

    /// Where it offers the volume while it is the source.
    fn socket(self, sites: &Sites) -> PathBuf {
        match self {
            Site::Primary => sites.socket(),
            Site::Secondary => sites.folder().join("nbd-secondary.sock"),
        }
    }
}

/// The database where a site serves it.
struct Service {
    // In this order it is ended.
    database: Postgres,
    volume: MountedExport,
}

impl Service {
    /// On what the site's export holds.
    fn start(sites: &Sites, site: Site) -> Service {
        Service::with(sites, site, |_| {}, |_| {})
    }

    /// On a new file system.
    fn make(sites: &Sites) -> Service {
        let xfs = |device: &Path| {
            let make = Tool::require("mkfs.xfs", "xfsprogs");
            make.run(["-q".as_ref(), "-K".as_ref(), device.as_os_str()]);
        };
        Service::with(sites, Site::Primary, xfs, Postgres::init)
    }

    fn with(sites: &Sites, site: Site, make: fn(&Path), init: fn(&Path)) -> Service {
        Service::at(sites, site.name(), &site.socket(sites), make, init)
    }

    fn at(sites: &Sites, name: &str, socket: &Path, make: fn(&Path), init: fn(&Path)) -> Service {
        let folder = sites.folder().join(format!("service-{name}"));
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        // One machine mounts both sites' copies, and xfs refuses two of the same id.
        let volume = MountedExport::new(&uri, &folder, "nouuid", make);
        let data = volume.root().join("data");
        init(&data);
        let home = sites.folder().join(format!("postgres-{name}"));
        Service { database: Postgres::start(&data, &home), volume }
    }

    /// Stops it in order, so that nothing is under way any more, and looks at every page.
    fn stop(self) {
        self.database.stop_and_check_pages();
        self.volume.unmount();
    }

    /// What any power cut must leave.
    fn assert_consistent(&self) {
        self.database.assert_sound();
        Load::assert_balanced(&self.database);
    }
}

/// Two sites, a database at the first, mirrored to the second.
struct Pair {
    // In this order they are ended, after the service.
    primary: Process,
    secondary: Process,
    proxy: Proxy,
    sites: Sites,
}

impl Pair {
    /// The database is made, dumped while its server runs, loaded at the other site, and followed from then
    /// on. A mode other than cycles of a second is for the caller to set, before the load starts.
    fn with_database(seed: u64) -> (Pair, Service) {
        Pair::with_database_and(seed, &[])
    }

    /// The same; the secondary is served with these flags, too.
    fn with_database_and(seed: u64, more: &[&str]) -> (Pair, Service) {
        let (sites, proxy) = Sites::through_proxy(512 * MIB, 0, "64KiB", seed);
        // The user that the server runs as has to get through.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(sites.folder(), open).expect("the folder is ours");
        proxy.set_delay(ONE_WAY);
        proxy.set_rate(Some(BYTES_A_SECOND));
        let primary = sites.serve_primary();
        let service = Service::make(&sites);
        Load::prepare(&service.database);
        sites.ship();
        let loaded = sites.json(sites.secondary(["status", "job"]))["position"].clone();
        let nbd = format!("unix:{}", Site::Secondary.socket(&sites).display());
        let flags = ["--nbd", &nbd, "--interval", "1s"];
        let secondary = sites.launch_secondary(&[&flags, more].concat());
        let pair = Pair { primary, secondary, proxy, sites };
        pair.wait_for_cut_after(&loaded);
        (pair, service)
    }

    fn status(&self, site: Site) -> Value {
        self.sites.json(match site {
            Site::Primary => self.sites.primary(["status", "job"]),
            Site::Secondary => self.sites.secondary(["status", "job"]),
        })
    }

    fn wait_until(&self, what: &str, site: Site, done: impl Fn(&Value) -> bool) {
        wait_for(what, SOON, || {
            // A look is a process; the load needs the machine, too.
            std::thread::sleep(LOOK);
            done(&self.status(site)).then_some(())
        });
    }

    fn position(&self) -> Value {
        self.status(Site::Secondary)["position"].clone()
    }

    /// Waits until the replica has committed another cut.
    fn wait_for_cut_after(&self, before: &Value) {
        let another = |status: &Value| status["position"] != *before;
        self.wait_until("another cut at the replica", Site::Secondary, another);
    }

    /// The primary dies with all that ran on it; what its clients saw until then.
    fn primary_dies(&mut self, service: Service, load: Load) -> ClientLog {
        self.primary.kill_9();
        drop(service);
        let log = load.end();
        self.wait_until("the secondary notices", Site::Secondary, |status| {
            status.pointer("/peers/0/connected") == Some(&Value::Bool(false))
        });
        log
    }

    /// Promotes the secondary and starts the database there; with what the promotion said beforehand.
    fn fail_over(&mut self) -> (Service, Value) {
        let position = self.position();
        let begun = unix_ms();
        let said = self.sites.json(self.sites.secondary(["promote", "job", "--dry-run"]));
        let ended = unix_ms();
        assert_eq!((&said["consistent"], &said["promoted"]), (&true.into(), &false.into()));
        assert_eq!(said["cut"], position["cut"], "{said}, status: {position}");
        assert_eq!(said["unix_ms"], position["unix_ms"], "{said}, status: {position}");
        let asked = number(&said, "unix_ms") + number(&said, "age_ms");
        assert!((begun..=ended).contains(&asked), "asked from {begun} to {ended}: {said}");
        let done = self.sites.json(self.sites.secondary(["promote", "job"]));
        assert_eq!(
            (&done["promoted"], &done["cut"]),
            (&true.into(), &said["cut"]),
            "{done}, before: {said}"
        );
        self.secondary.wait_for_socket(&Site::Secondary.socket(&self.sites), SOON);
        let service = Service::start(&self.sites, Site::Secondary);
        assert!(service.database.recovered(), "the copy is as after a power cut");
        (service, said)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_millis() as u64
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn in_cycles_the_newest_moments_are_lost_and_nothing_else_and_it_comes_home() {
    let (mut pair, service) = Pair::with_database(81);
    let mut load = Load::start(&service.database, 1);
    for _ in 0..3 {
        load.wait_for_more(&service.database, 50, SOON);
        pair.wait_for_cut_after(&pair.position());
    }

    // First the link goes, in the middle of a cycle or between two, and the application goes on: what it
    // commits from here on, the other site cannot have. Then the site goes.
    pair.proxy.cut();
    load.wait_for_more(&service.database, 100, SOON);
    let log = pair.primary_dies(service, load);
    let (away, said) = pair.fail_over();
    away.assert_consistent();
    let held = Load::held(&away.database, 1);
    log.assert_as_of(&held, number(&said, "unix_ms"));
    let lost = log.lost(&held).len();
    println!("{} seen committed, {lost} of them lost; {said}", log.transactions());
    assert!(lost >= 96 && held.transactions() >= 100, "{lost} lost, there are {held:?}");
    let second = Load::play(&away.database, 2, 100);
    assert_eq!(second.lost(&Load::held(&away.database, 2)), []);

    // The old site starts again. All that it acknowledged is there, and it knows that the other never had it.
    pair.proxy.heal();
    pair.primary = pair.sites.serve_primary();
    pair.wait_until("both have met", Site::Primary, |s| s["peers"][0]["rule"] == "split-brain");
    let old = Service::start(&pair.sites, Site::Primary);
    old.assert_consistent();
    assert_eq!(log.lost(&Load::held(&old.database, 1)), [], "acknowledged, and not at the source");
    assert_eq!(Load::held(&old.database, 2).transactions(), 0);
    old.stop();
    let refused = pair.sites.end(pair.sites.primary(["rejoin", "job"]));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("[local-writes]"), "{words}");
    pair.sites.ok(pair.sites.primary(["rejoin", "job", "--discard-local"]));
    pair.primary.wait_for_line("job is a replica now", SOON);
    pair.wait_until("it follows", Site::Primary, |status| status["state"] == "current");
    let third = Load::play(&away.database, 3, 50);

    // Home, planned.
    away.stop();
    pair.sites.ok(pair.sites.secondary(["switchover", "job"]));
    pair.secondary.wait_for_line("job is a replica now", SOON);
    pair.primary.wait_for_socket(&pair.sites.socket(), SOON);
    let home = Service::start(&pair.sites, Site::Primary);
    assert!(!home.database.recovered(), "it was stopped in order");
    home.assert_consistent();
    assert_eq!(Load::held(&home.database, 1), held, "what the failover kept");
    assert_eq!(second.lost(&Load::held(&home.database, 2)), []);
    assert_eq!(third.lost(&Load::held(&home.database, 3)), []);
    let fourth = Load::play(&home.database, 4, 50);
    assert_eq!(fourth.lost(&Load::held(&home.database, 4)), []);
    home.stop();
    wait_for("both sites to be equal", SOON, || {
        compare(&pair.sites.source_volume(), &pair.sites.replica_volume()).is_none().then_some(())
    });
    assert_eq!(pair.status(Site::Primary)["role"], "source");
    assert_eq!(pair.status(Site::Secondary)["role"], "replica");
}

/// The pair streams in this mode.
fn streaming(seed: u64, mode: &str) -> (Pair, Service) {
    let (pair, service) = Pair::with_database(seed);
    pair.sites.ok(pair.sites.primary(["mode", "job", mode]));
    pair.wait_until("it mirrors", Site::Primary, |status| status["state"] == "mirroring");
    (pair, service)
}

#[test]
fn in_sync_mode_no_transaction_that_was_seen_committed_is_lost() {
    let (mut pair, service) = streaming(82, "sync");
    let mut load = Load::start(&service.database, 1);
    load.wait_for_more(&service.database, 150, SOON);
    let log = pair.primary_dies(service, load);
    let (away, said) = pair.fail_over();
    away.assert_consistent();
    let held = Load::held(&away.database, 1);
    println!("{} seen committed; {said}", log.transactions());
    assert_eq!(log.lost(&held), [], "seen committed, and not at the other site: {said}");
    assert!(log.transactions() >= 150);
    away.stop();
}

#[test]
fn in_async_mode_a_moment_is_lost_at_most() {
    let (mut pair, service) = streaming(83, "async");
    let mut load = Load::start(&service.database, 1);
    load.wait_for_more(&service.database, 300, SOON);
    let log = pair.primary_dies(service, load);
    let (away, said) = pair.fail_over();
    away.assert_consistent();
    let held = Load::held(&away.database, 1);
    let lost = log.lost(&held).len() as u64;
    println!("{} seen committed, {lost} of them lost; {said}", log.transactions());
    // Whatever had returned before the newest cut is there; the stream brought more.
    log.assert_not_older(&held, number(&said, "unix_ms"));
    away.stop();
}

/// Somebody drops a table, and that is mirrored at once. A drill shows the copy as it was at the bookmark before
/// it, while the load goes on; then the service goes back there for good.
#[test]
fn a_mistake_is_undone_by_going_back_to_a_bookmark() {
    let (mut pair, service) = Pair::with_database_and(84, &["--retain", "1h"]);
    pair.sites.ok(pair.sites.primary(["mode", "job", "async"]));
    pair.wait_until("it mirrors", Site::Primary, |status| status["state"] == "mirroring");
    service.database.sql("CREATE TABLE precious AS SELECT generate_series(1, 1000) AS n");
    let mut load = Load::start(&service.database, 1);
    load.wait_for_more(&service.database, 100, SOON);
    let before = unix_ms();
    pair.sites.ok(pair.sites.primary(["bookmark", "job", "before-the-mistake"]));
    load.wait_for_more(&service.database, 50, SOON);
    service.database.sql("DROP TABLE precious");
    load.wait_for_more(&service.database, 50, SOON);
    pair.wait_for_cut_after(&pair.position());

    let socket = pair.sites.folder().join("drill.sock");
    let text = socket.display().to_string();
    let at = ["export", "job", "--at", "before-the-mistake", "--writable", "--background"];
    let words = [&at[..], &["--socket", &text]].concat();
    let view = pair.sites.json(pair.sites.secondary(&words));
    // The server that the copy remembers runs, on this very machine.
    let forget = |data: &Path| std::fs::remove_file(data.join("postmaster.pid")).expect("one ran");
    let drill = Service::at(&pair.sites, "drill", &socket, |_| {}, forget);
    assert!(drill.database.recovered(), "the bookmark is as after a power cut");
    drill.assert_consistent();
    assert_eq!(drill.database.sql("SELECT count(*) FROM precious").trim(), "1000");
    let held = Load::held(&drill.database, 1);
    let tried = Load::play(&drill.database, 2, 20);
    assert_eq!(tried.lost(&Load::held(&drill.database, 2)), []);
    drill.stop();
    let id = view["id"].to_string();
    let report = pair.sites.json(pair.sites.secondary(["export", "job", "--end", &id]));
    assert!(number(&report, "writes") > 0 && number(&report, "errors") == 0, "{report}");
    load.wait_for_more(&service.database, 20, SOON);

    let log = pair.primary_dies(service, load);
    log.assert_not_older(&held, before);
    let goes = ["promote", "job", "--at", "before-the-mistake"];
    let said = pair.sites.json(pair.sites.secondary(goes));
    assert!(said.pointer("/goes_back/grains").and_then(Value::as_u64) > Some(0), "{said}");
    pair.secondary.wait_for_socket(&Site::Secondary.socket(&pair.sites), SOON);
    let away = Service::start(&pair.sites, Site::Secondary);
    away.assert_consistent();
    assert_eq!(away.database.sql("SELECT count(*) FROM precious").trim(), "1000");
    assert_eq!(
        Load::held(&away.database, 1),
        held,
        "what the drill showed, and nothing of the drill"
    );
    assert_eq!(Load::held(&away.database, 2).transactions(), 0);
    let third = Load::play(&away.database, 3, 20);
    assert_eq!(third.lost(&Load::held(&away.database, 3)), []);
    away.stop();
}

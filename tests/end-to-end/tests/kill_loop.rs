//! Either agent is killed with SIGKILL at random moments of dump, load, attach, pull, commit and plain
//! service. However it comes, after a restart and a catch-up both volumes are equal and nothing is
//! missing that the application saw flushed.
//!
//! The seed is printed; `GRAINHAUL_SEED` sets it, so that a failure can be looked at again.

use std::path::PathBuf;
use std::time::Duration;

use end_to_end::{History, Process, Random, Sites, VolumeWriter, WriterOptions, wait_for};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// Each pair of sites lives two rounds: the copy by media, and the catch-up.
const PAIRS: u64 = 25;

struct Pair {
    sites: Sites,
    primary: Process,
    history: History,
    random: Random,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let mut random = Random::new(seed);
        let bytes = (16 + random.below(17)) * MIB + random.below(8) * 512;
        let grain = ["4KiB", "16KiB", "64KiB"][random.below(3) as usize];
        let sites = Sites::new(bytes, 10 * MIB, grain, random.bits());
        let primary = sites.serve_primary();
        Pair { sites, primary, history: History::default(), random }
    }

    fn writer(&mut self) -> VolumeWriter {
        let mut options = WriterOptions::new(self.sites.socket());
        options.seed = self.random.bits();
        options.pause = Duration::from_millis(1);
        VolumeWriter::resume(options, std::mem::take(&mut self.history))
    }

    fn pause(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(most_ms)));
    }

    fn restart_primary(&mut self) {
        self.primary.kill_9();
        self.primary = self.sites.serve_primary();
    }

    fn media(&self) -> [PathBuf; 2] {
        [self.sites.medium(1), self.sites.medium(2)]
    }

    /// Dumps while an application writes; the primary may be killed meanwhile, and then takes the
    /// dump up again, or begins another if it had not come to be.
    fn dump(&mut self, kill: bool) {
        let writer = self.writer();
        writer.wait_for_writes(5, SOON);
        let mut dump = self.sites.primary(["dump", "job", "--segment", "2MiB"]);
        for medium in self.media() {
            dump.arg("--to").arg(medium);
        }
        let mut process = Process::start(dump, self.sites.folder(), "dump");
        if kill {
            self.pause(250);
            self.primary.kill_9();
            process.kill_9();
            self.restart_primary();
            self.take_up();
        } else {
            let status = process.wait_for_exit(SOON);
            assert!(status.success(), "dump: {status}: {}", process.stderr());
        }
        self.history = writer.stop();
    }

    /// The restarted agent takes the dump up by itself; it is asked until there is no unfinished one.
    fn take_up(&mut self) {
        wait_for("the dump to be taken up", SOON, || {
            let resumed = self.sites.end(self.sites.primary(["dump", "job", "--resume"]));
            let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
            let settled = resumed.status.success() || said.contains("[nothing-to-resume]");
            assert!(settled || said.contains("[busy]"), "dump --resume: {said}");
            settled.then_some(())
        });
        let mut verify = self.sites.media_tools(["verify"]);
        verify.args(self.media());
        if self.sites.end(verify).status.success() {
            return;
        }
        println!("  the kill came before the dump had begun");
        let mut dump = self.sites.primary(["dump", "job"]);
        for medium in self.media() {
            dump.arg("--to").arg(medium);
        }
        self.sites.ok(dump);
    }

    /// Loads both media; the secondary may be killed meanwhile and loads again.
    fn load(&mut self, kill: bool) {
        let mut command = self.sites.secondary(["load", "job"]);
        command.args(self.media());
        if kill {
            let mut process = Process::start(command, self.sites.folder(), "load");
            self.pause(300);
            process.kill_9();
            command = self.sites.secondary(["load", "job"]);
            command.args(self.media());
        }
        self.sites.ok(command);
    }

    /// Service with an application that writes and a replica that follows, until one of them is
    /// killed: by chance in attach, pull, commit or in between.
    fn follow(&mut self, kill_primary: bool) {
        let writer = self.writer();
        writer.wait_for_writes(60, SOON);
        let mut secondary = self.sites.launch_secondary(&["--interval", "50ms", "--in-step", "0"]);
        self.pause(700);
        if kill_primary {
            self.restart_primary();
            writer.wait_for_writes(3, SOON);
        }
        secondary.kill_9();
        self.history = writer.stop();
    }

    fn check(&mut self, what: &str) {
        let lost = self.history.lost(&self.sites.source_volume());
        assert_eq!(lost, Vec::<u64>::new(), "{what}: flushed writes are missing at the source");
        self.sites.catch_up();
        self.sites.assert_equal();
        let lost = self.history.lost(&self.sites.replica_volume());
        assert_eq!(lost, Vec::<u64>::new(), "{what}: flushed writes are missing at the replica");
    }
}

#[test]
fn fifty_kills_lose_nothing() {
    let seed = std::env::var("GRAINHAUL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed);
    for number in 0..PAIRS {
        let own = random.bits();
        println!("pair {number} of seed {seed}");
        let mut pair = Pair::new(own);
        let in_dump = own & 1 == 0;
        println!("  killed in {}", if in_dump { "dump" } else { "load" });
        pair.dump(in_dump);
        pair.load(!in_dump);
        pair.check("after the load");
        let primary = own & 2 == 0;
        println!("  killed while following: {}", if primary { "both" } else { "secondary" });
        pair.follow(primary);
        pair.check("after following");
    }
}

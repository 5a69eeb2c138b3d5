//! One pair of sites and its rounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Tally;
use super::weather::{Weather, calm};
use crate::{
    History, Process, Proxy, Random, Sites, Verdict, VolumeWriter, WriterOptions, wait_for,
};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(180);
/// The least that `--journal-max` counts as.
const JOURNAL: u64 = 20 * MIB;
/// As small as the flags allow, or smaller than they count as.
const PRIMARY: &[&str] = &[
    "--preserve-buffer",
    "256KiB",
    "--preserve-side",
    "1MiB",
    "--preserve-wait",
    "100ms",
    "--crash-excess",
    "1MiB",
    "--layer-history",
    "0",
    "--epoch",
    "1s",
    "--stream-queue",
    "1MiB",
    "--stream-age",
    "2s",
];
const SECONDARY: &[&str] =
    &["--in-step", "0", "--samples", "64", "--journal-max", "1MiB", "--layer-history", "0"];
const DUMP: &[&str] = &[
    "--segment",
    "1MiB",
    "--preserve-buffer",
    "256KiB",
    "--preserve-side",
    "1MiB",
    "--preserve-wait",
    "50ms",
];

pub(super) struct Pair {
    sites: Sites,
    proxy: Arc<Proxy>,
    primary: Process,
    history: History,
    /// Writes of the history that are in the tally.
    answered: u64,
    random: Random,
    bytes: u64,
    /// Catch-ups that the journal does not take go straight into the volume.
    direct: bool,
}

impl Pair {
    pub(super) fn new(folder: &Path, seed: u64, tally: &mut Tally) -> Pair {
        let mut random = Random::new(seed);
        let bytes = (16 + random.below(33)) * MIB + random.below(8) * 512;
        let grain = ["4KiB", "16KiB", "64KiB", "256KiB"][random.below(4) as usize];
        let data = 4 * MIB + random.below(8 * MIB);
        let (sites, proxy) = Sites::in_folder(folder, bytes, data, grain, random.bits());
        let direct = random.below(3) == 0;
        println!("  {bytes} bytes, grain {grain}{}", if direct { ", direct" } else { "" });
        tally.event(if direct { "pair with --direct" } else { "pair without --direct" });
        let primary = sites.serve_primary_with(PRIMARY);
        let (history, proxy) = (History::default(), Arc::new(proxy));
        Pair { sites, proxy, primary, history, answered: 0, random, bytes, direct }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn writer(&mut self) -> VolumeWriter {
        let mut options = WriterOptions::new(self.sites.socket());
        options.seed = self.random.bits();
        options.pause = Duration::from_micros([0, 0, 300, 2000][self.random.below(4) as usize]);
        options.flush_every = [2, 20, 100][self.random.below(3) as usize];
        VolumeWriter::resume(options, std::mem::take(&mut self.history))
    }

    /// Ends the writer, whose last flush may fail, and keeps what it knows.
    fn stop(&mut self, writer: VolumeWriter, tally: &mut Tally) {
        self.history = writer.stop();
        tally.writes += self.history.answered() - self.answered;
        self.answered = self.history.answered();
    }

    fn pause(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(most_ms)));
    }

    /// Mostly soon, when much is going on; sometimes late.
    fn moment(&mut self) {
        let most_ms = [40, 200, 600, 1500][self.random.below(4) as usize];
        self.pause(most_ms);
    }

    fn restart_primary(&mut self, tally: &mut Tally) {
        if self.one_in(4) {
            // It does not come far.
            let mut process = self.sites.launch_primary_with(PRIMARY);
            self.pause(60);
            process.kill_9();
            tally.kill("primary while it starts");
        }
        self.primary = self.sites.serve_primary_with(PRIMARY);
    }

    /// The first round: the copy by media, with a kill in the dump or in the load.
    pub(super) fn seed(&mut self, tally: &mut Tally) {
        let writer = self.writer();
        writer.wait_for_writes(5, SOON);
        let media = [self.sites.medium(1), self.sites.medium(2)];
        let in_dump = self.one_in(2);
        let overflow = ["fuzzy", "throttle"][self.random.below(2) as usize];
        let mut process = self.start_dump(&media, overflow);
        if in_dump {
            self.pause(250);
            self.primary.kill_9();
            process.kill_9();
            tally.kill("primary in a dump");
            self.restart_primary(tally);
            self.take_up(&media, overflow, tally);
        } else {
            let status = process.wait_for_exit(SOON);
            assert!(status.success(), "dump: {status}: {}", process.stderr());
        }
        self.stop(writer, tally);
        let mut loads = 0;
        while !in_dump && loads < 1 + self.random.below(3) {
            let mut process = Process::start(self.load(&media), self.sites.folder(), "load");
            self.pause(300);
            process.kill_9();
            tally.kill("secondary in a load");
            loads += 1;
        }
        self.sites.ok(self.load(&media));
        let mode = ["cycle", "async", "sync", "sync"][self.random.below(4) as usize];
        self.sites.ok(self.sites.primary(["mode", "job", mode]));
        tally.event(match mode {
            "sync" => "pair in sync mode",
            "async" => "pair in async mode",
            _ => "pair in cycles",
        });
        tally.rounds += 1;
        self.judge(tally);
        if self.one_in(2) {
            self.settle(tally);
        }
    }

    fn start_dump(&self, media: &[PathBuf], overflow: &str) -> Process {
        let mut dump = self.sites.primary(["dump", "job", "--preserve", overflow]);
        dump.args(DUMP);
        for medium in media {
            dump.arg("--to").arg(medium);
        }
        Process::start(dump, self.sites.folder(), "dump")
    }

    fn load(&self, media: &[PathBuf]) -> std::process::Command {
        let mut command = self.sites.secondary(["load", "job"]);
        command.args(media);
        command
    }

    /// The restarted agent takes a dump up by itself; it is asked until there is no unfinished one. If the
    /// kill came before the dump had come to be, another is made.
    fn take_up(&mut self, media: &[PathBuf], overflow: &str, tally: &mut Tally) {
        wait_for("the dump to be taken up", SOON, || {
            let resumed = self.sites.end(self.sites.primary(["dump", "job", "--resume"]));
            let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
            let settled = resumed.status.success() || said.contains("[nothing-to-resume]");
            assert!(settled || said.contains("[busy]"), "dump --resume: {said}");
            settled.then_some(())
        });
        let mut verify = self.sites.media_tools(["verify"]);
        verify.args(media);
        if self.sites.end(verify).status.success() {
            return tally.event("dump taken up and finished");
        }
        tally.event("dump that had not begun");
        let mut process = self.start_dump(media, overflow);
        let status = process.wait_for_exit(SOON);
        assert!(status.success(), "dump: {status}: {}", process.stderr());
    }

    /// A round of plain service: the application writes, the replica follows over a bad link, kills come.
    pub(super) fn round(&mut self, tally: &mut Tally) {
        let writer = self.writer();
        let most = [40, 150, 600][self.random.below(3) as usize];
        let writes = 1 + self.random.below(most);
        writer.wait_for_writes(writes, SOON);
        let weather = Weather::start(self.proxy.clone(), self.random.bits());
        let mut secondary = self.follow();
        let mut dump = self.one_in(8).then(|| {
            let medium = self.sites.medium(3);
            (self.start_dump(std::slice::from_ref(&medium), "fuzzy"), medium)
        });
        self.moment();
        let whom = self.random.below(4);
        if let (Some((process, _)), 0 | 2 | 3) = (&mut dump, whom) {
            // One that finds no agent makes the dump itself, and holds the relationship meanwhile.
            process.kill_9();
        }
        match whom {
            0 => {
                self.primary.kill_9();
                tally.kill("primary");
                self.restart_primary(tally);
                self.moment();
                secondary.kill_9();
                tally.kill("secondary");
            }
            1 => {
                secondary.kill_9();
                tally.kill("secondary");
                if self.one_in(2) {
                    secondary = self.follow();
                    self.moment();
                    secondary.kill_9();
                    tally.kill("secondary again");
                }
            }
            2 => {
                self.primary.kill_9();
                secondary.kill_9();
                tally.kill("both, the primary first");
                self.restart_primary(tally);
            }
            _ => {
                secondary.kill_9();
                self.primary.kill_9();
                tally.kill("both, the secondary first");
                self.restart_primary(tally);
            }
        }
        writer.wait_for_writes(3, SOON);
        self.stop(writer, tally);
        weather.stop().into_iter().for_each(|(name, n)| *tally.link.entry(name).or_default() += n);
        if let Some((process, medium)) = dump {
            self.cancel(process, &medium, tally);
        }
        tally.rounds += 1;
        self.judge(tally);
        match self.random.below(3) {
            0 => tally.event("round that leaves the catch-up to the next"),
            _ => self.settle(tally),
        }
    }

    fn follow(&self) -> Process {
        let mut flags = vec!["--interval", "50ms"];
        flags.extend(SECONDARY);
        flags.extend(self.direct.then_some("--direct"));
        self.sites.launch_secondary(&flags)
    }

    /// Ends a dump that ran beside; its medium may hold a whole set, or nothing.
    fn cancel(&mut self, mut process: Process, medium: &Path, tally: &mut Tally) {
        process.kill_9();
        wait_for("the dump to be cancelled", SOON, || {
            let ended = self.sites.end(self.sites.primary(["dump", "job", "--cancel"]));
            ended.status.success().then_some(())
        });
        let running = || {
            let status = self.sites.json(self.sites.primary(["status", "job"]));
            let stage = status.pointer("/job/stage").and_then(|s| s.as_str()).map(str::to_owned);
            stage.as_deref() == Some("running")
        };
        wait_for("the dump to end", SOON, || (!running()).then_some(()));
        let removed = std::fs::remove_dir_all(medium);
        removed.unwrap_or_else(|e| panic!("{}: {e}", medium.display()));
        tally.event("dump beside the service, cancelled");
    }

    /// What must hold after any kill, without a catch-up.
    fn judge(&mut self, tally: &mut Tally) {
        let lost = self.history.lost(&self.sites.source_volume());
        assert_eq!(lost, Vec::<u64>::new(), "flushed writes are missing at the source");
        tally.event("source judged");
        if self.one_in(2) {
            self.judge_replica(tally);
        }
        let journal = self.sites.folder().join("secondary/relationships/job/journal");
        let bytes = journal_bytes(&journal);
        tally.journal_bytes = tally.journal_bytes.max(bytes);
        assert!(bytes <= JOURNAL, "{bytes} bytes in {}", journal.display());
    }

    /// Starts the replica without a link, so that it brings what is committed into its volume, and stops
    /// it: if it says that it is consistent, its volume is as the source's was at one instant.
    fn judge_replica(&mut self, tally: &mut Tally) {
        self.proxy.cut();
        let mut secondary = self.follow();
        secondary.wait_for_line("follows its primary", SOON);
        let status = secondary.terminate(SOON);
        assert!(status.success(), "secondary: {status}: {}", secondary.stderr());
        self.proxy.heal();
        let status = self.sites.json(self.sites.secondary(["status", "job"]));
        if status["state"] != "consistent" {
            return tally.event("replica that says it is not consistent");
        }
        let verdict = self.history.judge(&self.sites.replica_volume());
        assert!(matches!(verdict, Verdict::Instant(_)), "{verdict:?} at a replica: {status}");
        tally.event("replica judged, at one instant");
    }

    /// Catches up over a link that is good, and compares.
    fn settle(&mut self, tally: &mut Tally) {
        calm(&self.proxy);
        let mut process = self.catch_up(self.direct);
        let mut status = process.wait_for_exit(SOON);
        if !status.success() && !self.direct && process.stderr().contains("--direct") {
            tally.event("catch-up larger than the journal, refused");
            process = self.catch_up(true);
            status = process.wait_for_exit(SOON);
        }
        assert!(status.success(), "serve --once: {status}\n{}", process.stderr());
        self.sites.assert_equal();
        tally.event("catch-up, both compared");
        tally.compared_bytes += self.bytes;
        let lost = self.history.lost(&self.sites.replica_volume());
        assert_eq!(lost, Vec::<u64>::new(), "flushed writes are missing at the replica");
    }

    fn catch_up(&self, direct: bool) -> Process {
        let mut flags = vec!["--once"];
        flags.extend(SECONDARY);
        flags.extend(direct.then_some("--direct"));
        self.sites.launch_secondary(&flags)
    }

    /// The end of a pair: caught up, equal, both stopped in good order, still equal.
    pub(super) fn end(&mut self, tally: &mut Tally) {
        self.settle(tally);
        let status = self.primary.terminate(SOON);
        assert!(status.success(), "primary: {status}: {}", self.primary.stderr());
        self.sites.assert_equal();
        tally.compared_bytes += self.bytes;
        tally.connections += self.proxy.connections();
        for direction in [crate::Direction::ToTarget, crate::Direction::FromTarget] {
            tally.link_bytes += self.proxy.bytes(direction);
        }
    }
}

/// Bytes of a journal's files. One that was being made when its process was killed is to take the place of
/// another, and goes at the next start.
fn journal_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let entries = entries.flatten().filter(|entry| entry.file_name() != "fresh.ghj");
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

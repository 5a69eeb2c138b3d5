//! `docs/operations/postgresql.md`, command by command, each at the site that the page says, with what
//! happens between them. Only paths and addresses are others.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use end_to_end::{Postgres, Process, Sites, Tool, binary, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
const NAMES: [&str; 2] = ["primary", "secondary"];

/// Something that a command has left standing: the beginning of the command that ends it, and how it is
/// ended when the page does not come to that.
struct Standing {
    site: usize,
    ended_by: &'static str,
    undo: String,
}

/// Where the commands are run.
struct Reader {
    /// Where the page is.
    site: usize,
    // In this order they are ended, after what stands; then the folder goes.
    agents: [Option<Process>; 2],
    exports: Vec<Process>,
    sites: Sites,
    standing: Vec<Standing>,
    /// What `losetup` took.
    devices: [String; 2],
    /// The process of the server that was started last.
    server: PathBuf,
    ran: usize,
}

impl Reader {
    fn new(seed: u64) -> Reader {
        let sites = Sites::new(448 * MIB, 0, "64KiB", seed);
        let primary = sites.serve_primary();
        sites.ship();
        drop(primary);
        let reader = Reader {
            site: 0,
            agents: [None, None],
            exports: Vec::new(),
            sites,
            standing: Vec::new(),
            devices: Default::default(),
            server: PathBuf::new(),
            ran: 0,
        };
        // The user `postgres` gets through; the server's socket stands in a folder of its own.
        let folder = reader.sites.folder().display().to_string();
        reader.ok(&format!("chmod 0711 {folder}"));
        reader.ok(&format!("mkdir --parents {folder}/at-primary/run {folder}/at-secondary/run"));
        reader.ok(&format!("install --directory --owner=postgres {}", reader.socket().display()));
        reader
    }

    fn socket(&self) -> PathBuf {
        self.sites.folder().join("postgres")
    }

    /// What stands below `/` on the page, at a site.
    fn root(&self, site: usize) -> PathBuf {
        self.sites.folder().join(format!("at-{}", NAMES[site]))
    }

    fn export(&self, site: usize) -> PathBuf {
        self.root(site).join("run/job.sock")
    }

    fn filled_in(&self, line: &str) -> String {
        let root = self.root(self.site).display().to_string();
        line.replace("/run/NAME", &format!("{root}/run/NAME"))
            .replace("/srv/pg", &format!("{root}/srv/pg"))
            .replace("/dev/loop0", &self.devices[self.site])
            .replace("0.0.0.0:7420", &self.sites.address().to_string())
            .replace("NAME", "job")
    }

    /// A line of shell at the site where the page is.
    fn command(&self, line: &str) -> Command {
        let agent = binary("primary-agent");
        let own = agent.parent().expect("it is in a folder").to_owned();
        let listed = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let path = [own, Postgres::programs()].into_iter().chain(std::env::split_paths(&listed));
        let path = std::env::join_paths(path.chain(system)).expect("a search path");
        let mut command = Tool::require("sh", "dash").command();
        command.arg("-c").arg(line).current_dir("/").env("PATH", path).env("LC_ALL", "C");
        command.env("PGHOST", self.socket());
        command.env("GRAINHAUL_STATE", self.sites.folder().join(NAMES[self.site]));
        command
    }

    fn ok(&self, line: &str) -> String {
        self.sites.ok(self.command(line))
    }

    fn end(&self, line: &str) -> Output {
        self.sites.end(self.command(line))
    }

    /// SQL, as the administrator types it.
    fn sql(&self, text: &str) -> String {
        let psql = "runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align";
        self.ok(&format!("{psql} --command=\"{text}\"")).trim().to_owned()
    }

    fn status(&self, site: usize) -> Value {
        self.sites.json(match site {
            0 => self.sites.primary(["status", "job"]),
            _ => self.sites.secondary(["status", "job"]),
        })
    }

    fn wait_until(&self, what: &str, site: usize, done: impl Fn(&Value) -> bool) {
        wait_for(what, SOON, || {
            std::thread::sleep(LOOK);
            done(&self.status(site)).then_some(())
        });
    }

    /// Runs one line of the page.
    fn run(&mut self, line: &str) {
        println!("{}: {line}", NAMES[self.site]);
        self.ran += 1;
        let filled = self.filled_in(line);
        let words: Vec<&str> = filled.split_whitespace().collect();
        let last = words.last().copied().unwrap_or_default();
        if words[0].ends_with("-agent") {
            assert!(words[0].starts_with(NAMES[self.site]), "at the other site: {line}");
        }
        if line.contains("-agent serve ") {
            let command = self.command(&format!("exec {filled}"));
            let process = Process::start(command, self.sites.folder(), NAMES[self.site]);
            self.agents[self.site] = Some(process);
            self.wait_until("it runs", self.site, |status| status["running"] == true);
            return;
        }
        if words[0] == "nbdfuse" {
            let name = format!("nbdfuse-{}", self.ran);
            let command = self.command(&format!("exec {filled}"));
            self.exports.push(Process::start(command, self.sites.folder(), &name));
            let file = PathBuf::from(words[1]);
            let folder = file.parent().expect("a file in a folder").display().to_string();
            self.stands("fusermount3 ", format!("fusermount3 -uz {folder}"));
            return wait_for("the export as a file", SOON, || file.is_file().then_some(()));
        }
        let said = self.ok(&filled);
        self.standing.retain(|s| s.site != self.site || !filled.starts_with(s.ended_by));
        assert!(!words[0].ends_with("-agent") || !said.trim().is_empty(), "{line} says nothing");
        match words[0] {
            "losetup" if line.contains("--find") => {
                self.devices[self.site] = said.trim().to_owned();
                let detach = format!("losetup --detach {}", self.devices[self.site]);
                self.stands("losetup --detach ", detach);
            }
            _ if line.contains(" initdb ") => {
                // No address, and a socket that is found at both sites. Synced, or a copy is without it.
                let socket = self.socket().display().to_string();
                let settings = format!("listen_addresses=''\nunix_socket_directories='{socket}'");
                let file = format!("{last}/postgresql.conf").replace("--pgdata=", "");
                self.ok(&format!("echo \"{settings}\" >> {file} && sync {file}"));
            }
            "mount" => self.stands("umount ", format!("umount --lazy {last}")),
            _ if line.contains("pg_ctl start") => {
                // By its id: when the export is gone, `pg_ctl` cannot read which one it is.
                let data = self.root(self.site).join("srv/pg/main");
                let file = std::fs::read_to_string(data.join("postmaster.pid"));
                let file = file.expect("a server that runs has its id there");
                let id = file.lines().next().unwrap_or_default();
                let wait = format!("timeout 15 tail --pid={id} --follow /dev/null");
                self.server = PathBuf::from(format!("/proc/{id}"));
                let stop = format!("kill -s QUIT {id} && {wait} || kill -s KILL {id}");
                self.stands("runuser -u postgres -- pg_ctl stop ", stop);
            }
            _ => {}
        }
    }

    fn stands(&mut self, ended_by: &'static str, undo: String) {
        self.standing.push(Standing { site: self.site, ended_by, undo });
    }

    /// What happens before a line, told by the page in words.
    fn before(&mut self, line: &str) {
        if line.contains(" promote NAME --dry-run") {
            self.primary_is_lost();
        } else if line.contains(" rejoin ") {
            self.wait_until("both have met", 0, |s| s["peers"][0]["rule"] == "split-brain");
        } else if line.contains("pg_ctl stop") {
            self.wait_until("it is current", 0, |status| status["state"] == "current");
        } else if line.starts_with("umount ") {
            let gone = || (!self.server.exists()).then_some(());
            wait_for("the server to let go of the volume", SOON, gone);
        } else if line.starts_with("nbdfuse ") {
            let (site, export) = (self.site, self.export(self.site));
            self.agents[site].as_mut().expect("it runs").wait_for_socket(&export, SOON);
        }
    }

    fn primary_is_lost(&mut self) {
        self.sql("CREATE TABLE page AS SELECT 'from home' AS words");
        // A cut that was made later than this is one with that row.
        let now = self.status(1)["unix_ms"].as_u64();
        self.wait_until("the row at the replica", 1, |s| s["position"]["unix_ms"].as_u64() > now);
        self.sql("INSERT INTO page VALUES ('too late, perhaps')");
        self.agents[0].as_mut().expect("it runs").kill_9();
        self.undo(Some(0));
        self.wait_until("the secondary notices", 1, |s| s["peers"][0]["connected"] == false);
    }

    /// Ends what stands, the newest first; at one site or at both.
    fn undo(&mut self, site: Option<usize>) {
        for standing in std::mem::take(&mut self.standing).into_iter().rev() {
            match site {
                Some(site) if standing.site != site => self.standing.insert(0, standing),
                // What is gone already cannot be ended.
                _ => drop(self.end(&standing.undo)),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.undo(None);
    }
}

#[test]
fn the_page_on_postgresql_is_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations");
    let page = std::fs::read_to_string(path.join("postgresql.md")).expect("the page");
    let mut reader = Reader::new(83);
    let mut started = 0;
    for line in page.lines() {
        let Some(command) = line.strip_prefix("    ") else {
            for (site, words) in ["At the primary", "At the secondary"].into_iter().enumerate() {
                reader.site = if line.contains(words) { site } else { reader.site };
            }
            continue;
        };
        reader.before(command);
        reader.run(command);
        started += usize::from(command.contains("pg_ctl start"));
        if command.contains("pg_ctl start") && reader.site == 1 {
            assert!(reader.sql("SELECT words FROM page").contains("from home"));
            reader.sql("INSERT INTO page VALUES ('from away')");
        }
    }
    // Home again, with what was written at both sites.
    let words = reader.sql("SELECT words FROM page WHERE words LIKE 'from %' ORDER BY words");
    assert_eq!(words, "from away\nfrom home");
    assert!(reader.ran >= 30 && started == 3, "only {} commands were found", reader.ran);
    assert_eq!(reader.status(0)["role"], "source");
}

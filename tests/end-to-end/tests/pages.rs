//! Every command of the README and of the walk-through is run, in the order in which it stands there, at
//! the site where it belongs. Only the names of volumes, disks, sockets and addresses are others.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use end_to_end::{Process, Sites, binary, compare, overwrite, wait_for};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn page(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines of a page that stand indented as commands, without their comments.
fn commands(page: &str) -> Vec<String> {
    let indented = page.lines().filter_map(|line| line.strip_prefix("    "));
    let bare = indented.map(|line| line.split("  #").next().unwrap_or(line).trim().to_owned());
    bare.filter(|line| !line.is_empty()).collect()
}

/// Where the commands of one page are run.
struct Reader {
    sites: Sites,
    name: &'static str,
    identity: Option<String>,
    running: Vec<Process>,
    ran: usize,
    /// Who typed last: `media-tools` is run by the same.
    at_secondary: bool,
}

impl Reader {
    fn new(name: &'static str, seed: u64) -> Reader {
        let sites = Sites::unrelated(24 * MIB, 10 * MIB, seed);
        // Fresh disks, mounted.
        drop((sites.medium(1), sites.medium(2)));
        Reader { sites, name, identity: None, running: Vec::new(), ran: 0, at_secondary: false }
    }

    /// The line with this machine's names in place of those of the page.
    fn filled_in(&self, line: &str) -> String {
        let identity = self.identity.as_deref().unwrap_or("IDENTITY");
        let path = |path: PathBuf| path.display().to_string();
        let address = self.sites.address().to_string();
        let replica = line.starts_with("secondary-agent");
        let volume = if replica { self.sites.replica_volume() } else { self.sites.source_volume() };
        line.replace(&format!("/run/{}.sock", self.name), &path(self.sites.socket()))
            .replace("/dev/vg/data", &path(volume))
            .replace("/dev/vg/copy", &path(self.sites.replica_volume()))
            .replace("primary.example:7420", &address)
            .replace("0.0.0.0:7420", &address)
            .replace("/mnt/disk1", &path(self.sites.medium(1)))
            .replace("/mnt/disk2", &path(self.sites.medium(2)))
            .replace("IDENTITY", identity)
            .replace("NAME", "job")
    }

    fn command(&mut self, line: &str) -> Command {
        let line = self.filled_in(line);
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        self.at_secondary = match program {
            "primary-agent" => false,
            "secondary-agent" => true,
            _ => self.at_secondary,
        };
        let mut command = match program {
            "primary-agent" | "secondary-agent" | "media-tools" => Command::new(binary(program)),
            "nbdinfo" | "qemu-img" => Command::new(program),
            other => panic!("the page wants `{other}` run, which this test does not know"),
        };
        let state = if self.at_secondary { "secondary" } else { "primary" };
        command.args(words).current_dir(self.sites.folder());
        command.env("GRAINHAUL_STATE", self.sites.folder().join(state));
        command
    }

    /// Runs one line. What goes on running is left to run.
    fn run(&mut self, line: &str) {
        println!("  {line}");
        self.ran += 1;
        let command = self.command(line);
        let serves = line.contains(" serve ") && !line.contains("--once");
        if serves {
            let site = if self.at_secondary { "secondary" } else { "primary" };
            let mut process = Process::start(command, self.sites.folder(), site);
            let sign = if self.at_secondary { "follows its primary" } else { "is served" };
            process.wait_for_line(sign, SOON);
            self.running.push(process);
            return;
        }
        let output = self.sites.ok(command);
        assert!(!output.trim().is_empty() || line.contains("--once"), "{line} says nothing");
        if line.contains(" identity") {
            self.identity = Some(output.trim().to_owned());
        }
    }

    /// Every command of the page; while the dump's disks travel, something is written.
    fn read(&mut self, page: &str) {
        for line in commands(page) {
            if line.starts_with("cargo xtask") {
                continue;
            }
            self.run(&line);
            if line.contains(" dump ") {
                let io = end_to_end::Tool::require("qemu-io", "qemu-utils");
                let write = ["-f", "raw", "-c", "write -P 7 2M 3M", "-c", "flush"];
                let mut arguments = write.map(str::to_owned).to_vec();
                arguments.push(self.sites.uri());
                io.run(arguments);
            }
        }
        let equal = || {
            compare(&self.sites.source_volume(), &self.sites.replica_volume())
                .is_none()
                .then_some(())
        };
        wait_for("both volumes to be equal", SOON, equal);
        assert_eq!(self.running.len(), 2, "both agents run at the end");
        for process in &mut self.running {
            assert!(process.terminate(SOON).success(), "{}", process.stderr());
        }
    }
}

#[test]
fn the_readme_leads_to_two_equal_sites() {
    let page = page("README.md");
    let mut reader = Reader::new("NAME", 71);
    reader.read(&page);
    assert!(reader.ran >= 12, "only {} commands were found", reader.ran);
}

#[test]
fn the_walk_through_leads_to_two_equal_sites() {
    let page = page("docs/walk-through.md");
    let mut reader = Reader::new("payroll", 72);
    reader.read(&page);
    assert!(reader.ran >= 17, "only {} commands were found", reader.ran);
}

#[test]
fn the_readme_names_the_two_tasks_and_they_exist() {
    let page = page("README.md");
    let tasks = commands(&page);
    let tasks: Vec<&str> = tasks.iter().filter_map(|t| t.strip_prefix("cargo xtask ")).collect();
    assert_eq!(tasks, ["demo", "test"]);
}

/// What `cargo xtask demo` starts after it has built everything; here with an image of one's own, which
/// is to stay as it was.
#[test]
fn the_demo_comes_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("own.img");
    end_to_end::sparse_image(&image, 48 * MIB + 512, 6, 3_000_000, 73);
    overwrite(&image, 5 * MIB, MIB, 74);
    let before = std::fs::read(&image).expect("the image");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.arg("--input").arg(&image).arg("--dir").arg(folder.path().join("work"));
    let output = demo.output().expect("the demo runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{errors}");
    for row in ["on the media", "over the link", "of a full copy", "grains repaired"] {
        assert!(said.contains(row), "`{row}` is not in the table:\n{said}");
    }
    assert_eq!(std::fs::read(&image).expect("the image"), before);
}

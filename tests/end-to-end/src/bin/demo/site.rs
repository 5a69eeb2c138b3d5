//! The two sites of the demo: our binaries, run as an operator would.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use end_to_end::{Process, binary};
use serde_json::Value;

/// The pair.
pub struct Sites {
    dir: PathBuf,
    address: String,
    media: [PathBuf; 2],
    link_bytes: Cell<u64>,
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

impl Sites {
    /// Identities, the relationship at the primary, its ticket, the replica at the secondary.
    pub fn init(
        dir: &Path,
        volumes: &[PathBuf; 2],
        copies: &[PathBuf; 2],
    ) -> Result<Sites, String> {
        // A free port: the listener is dropped before the agent takes it.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(text)?;
        let media = ["medium-1", "medium-2"].map(|name| dir.join(name));
        let sites = Sites {
            dir: dir.to_owned(),
            address: free.to_string(),
            media,
            link_bytes: Cell::new(0),
        };
        let identity = sites.secondary(&["identity"])?;
        let ticket = dir.join("demo.ticket").display().to_string();
        let [disk, log] = volumes.each_ref().map(|v| v.display().to_string());
        sites.primary(&[
            "init",
            "demo",
            "--volume",
            &format!("disk={disk}"),
            "--volume",
            &format!("log={log}"),
            "--peer",
            identity.trim(),
            "--address",
            &sites.address,
            "--ticket",
            &ticket,
        ])?;
        let [disk, log] = copies.each_ref().map(|v| v.display().to_string());
        sites.secondary(&[
            "init",
            "demo",
            "--ticket",
            &ticket,
            "--volume",
            &format!("disk={disk}"),
            "--volume",
            &format!("log={log}"),
        ])?;
        Ok(sites)
    }

    fn run(&self, name: &str, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary(name));
        command.arg("--state-dir").arg(self.dir.join(format!("{name}-state"))).args(words);
        let output = command.output().map_err(text)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{name} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)))
    }

    fn primary(&self, words: &[&str]) -> Result<String, String> {
        self.run("primary-agent", words)
    }

    fn secondary(&self, words: &[&str]) -> Result<String, String> {
        self.run("secondary-agent", words)
    }

    fn json(&self, name: &str, words: &[&str]) -> Result<Value, String> {
        let mut all = vec!["--json", "--quiet"];
        all.extend(words);
        serde_json::from_str(&self.run(name, &all)?).map_err(text)
    }

    /// The socket of the NBD exports.
    pub fn nbd_socket(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }

    /// Starts the primary.
    pub fn serve_primary(&self) -> Result<Process, String> {
        let mut command = Command::new(binary("primary-agent"));
        command.arg("--state-dir").arg(self.dir.join("primary-agent-state"));
        command.args(["serve", "demo", "--listen", &self.address, "--nbd"]);
        command.arg(format!("unix:{}", self.nbd_socket().display()));
        let mut process = Process::start(command, &self.dir, "primary");
        process.wait_for_socket(&self.nbd_socket(), Duration::from_secs(30));
        Ok(process)
    }

    /// Dumps; gives the bytes on the media.
    pub fn dump(&self) -> Result<u64, String> {
        let [one, two] = self.media.each_ref().map(|m| m.display().to_string());
        let done = self.json("primary-agent", &["dump", "demo", "--to", &one, "--to", &two])?;
        let media = done["medium_bytes"].as_array().cloned().unwrap_or_default();
        Ok(media.iter().filter_map(Value::as_u64).sum())
    }

    /// Flips bytes in the middle of a segment of the second medium.
    pub fn ship_and_damage(&self) -> Result<String, String> {
        let entries = fs::read_dir(&self.media[1]).map_err(text)?;
        let largest = entries
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "ghs"))
            .max_by_key(|e| e.metadata().map(|m| m.len()).unwrap_or(0))
            .ok_or("there is no segment to damage")?;
        let file = OpenOptions::new().read(true).write(true).open(largest.path()).map_err(text)?;
        let at = file.metadata().map_err(text)?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).map_err(text)?;
        file.write_all_at(&[byte[0] ^ 0x55], at).map_err(text)?;
        Ok(format!("byte {at} of {} was flipped", largest.file_name().to_string_lossy()))
    }

    /// Loads both media; gives the grains that were damaged.
    pub fn load(&self) -> Result<u64, String> {
        let [one, two] = self.media.each_ref().map(|m| m.display().to_string());
        let done = self.json("secondary-agent", &["load", "demo", &one, &two])?;
        let damaged = done["damaged_grains"].as_u64().unwrap_or(0);
        if damaged == 0 {
            return Err("the damage was not noticed".to_owned());
        }
        Ok(damaged)
    }

    /// Follows the primary until in step; gives the short name of the cut.
    pub fn catch_up(&self) -> Result<String, String> {
        let done = self.json("secondary-agent", &["serve", "demo", "--once"])?;
        let bytes = done["link_bytes"].as_u64().ok_or("no figure for the link")?;
        self.link_bytes.set(self.link_bytes.get() + bytes);
        let cut = done["in_step"].as_str().ok_or("no cut was reached")?;
        Ok(cut.get(cut.len().saturating_sub(8)..).unwrap_or(cut).to_owned())
    }

    /// Payload bytes that went over the link.
    pub fn link_bytes(&self) -> u64 {
        self.link_bytes.get()
    }
}

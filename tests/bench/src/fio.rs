//! Runs fio, on an NBD export or on a file, and reads its figures.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process;

/// What fio writes to or reads from.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The default export behind a Unix socket.
    Nbd(&'a Path),
    /// A file.
    File(&'a Path),
}

/// A pattern of requests.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// `randread`, `randwrite`, `read` or `write`.
    pub kind: &'static str,
    /// Bytes of a request.
    pub block_bytes: u64,
    /// Requests at the same time.
    pub depth: u32,
    /// Where what is accessed begins, in bytes.
    pub from_byte: u64,
    /// Size of what is accessed, in bytes.
    pub size_bytes: u64,
}

/// What fio measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Requests a second.
    pub requests_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Runs a pattern for some time.
pub fn for_seconds(target: Target<'_>, pattern: Pattern, seconds: u64) -> Result<Figures, String> {
    let mut command = command(target, pattern);
    // The client is on the same processors: it must cost as little as it can.
    command.args(["--gtod_reduce=1", "--time_based", &format!("--runtime={seconds}")]);
    figures(&mut command, pattern.kind)
}

/// Figures, and what a request took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The rates.
    pub figures: Figures,
    /// Half the requests took at most so long.
    pub median_us: f64,
    /// 99 of 100 took at most so long.
    pub p99_us: f64,
}

/// How long [`with_latency`] runs.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Requests a second at most.
    pub per_second: Option<u32>,
    /// Seconds that do not count.
    pub ramp_seconds: u64,
    /// Seconds after them.
    pub seconds: u64,
}

/// Runs a pattern for some time, with a look at the clock at each request.
pub fn with_latency(
    target: Target<'_>,
    pattern: Pattern,
    course: Course,
) -> Result<Latency, String> {
    let mut command = command(target, pattern);
    command.args(course.per_second.map(|rate| format!("--rate_iops={rate}")));
    command.args([
        "--time_based",
        &format!("--ramp_time={}", course.ramp_seconds),
        &format!("--runtime={}", course.seconds),
    ]);
    let job = job(&process::run(&mut command)?)?;
    let side = side(pattern.kind);
    let at = |percentile: &str| {
        let nanoseconds = job[side]["clat_ns"]["percentile"][percentile].as_f64();
        let missing = || format!("fio's JSON has no percentile {percentile} of {side}.clat_ns");
        Ok::<f64, String>(nanoseconds.ok_or_else(missing)? / 1e3)
    };
    let figures = figures_of(&job, pattern.kind)?;
    Ok(Latency { figures, median_us: at("50.000000")?, p99_us: at("99.000000")? })
}

/// Writes `bytes` bytes in a pattern that `seed` decides, and syncs.
pub fn write_bytes(
    target: Target<'_>,
    pattern: Pattern,
    bytes: u64,
    seed: usize,
) -> Result<(), String> {
    let mut command = command(target, pattern);
    command.args([
        &format!("--io_size={bytes}"),
        &format!("--randseed={}", seed + 1),
        "--refill_buffers",
        "--end_fsync=1",
    ]);
    figures(&mut command, pattern.kind).map(drop)
}

fn command(target: Target<'_>, pattern: Pattern) -> Command {
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--output-format=json", "--norandommap"]);
    match target {
        Target::Nbd(socket) => {
            command.arg("--ioengine=nbd");
            command.arg(format!("--uri=nbd+unix:///?socket={}", socket.display()));
        }
        Target::File(path) => {
            // A colon in a file name separates names for fio.
            let name = path.display().to_string().replace(':', "\\:");
            command.args(["--ioengine=psync", "--fallocate=none", &format!("--filename={name}")]);
        }
    }
    command.arg(format!("--rw={}", pattern.kind));
    command.arg(format!("--bs={}", pattern.block_bytes));
    command.arg(format!("--iodepth={}", pattern.depth));
    command.arg(format!("--offset={}", pattern.from_byte));
    command.arg(format!("--size={}", pattern.size_bytes));
    command
}

fn figures(command: &mut Command, kind: &str) -> Result<Figures, String> {
    parse(&process::run(command)?, kind)
}

fn parse(output: &str, kind: &str) -> Result<Figures, String> {
    figures_of(&job(output)?, kind)
}

/// Reads fio's JSON; engines print lines of their own before it.
fn job(output: &str) -> Result<Value, String> {
    let start = output.find('{').ok_or("fio printed no JSON")?;
    let mut documents = serde_json::Deserializer::from_str(&output[start..]).into_iter::<Value>();
    let document =
        documents.next().ok_or("fio printed no JSON")?.map_err(|e| format!("fio's JSON: {e}"))?;
    let job = &document["jobs"][0];
    match job["error"].as_i64() {
        Some(0) => Ok(job.clone()),
        _ => Err(format!("fio reports error {}", job["error"])),
    }
}

fn side(kind: &str) -> &'static str {
    if kind.ends_with("read") { "read" } else { "write" }
}

fn figures_of(job: &Value, kind: &str) -> Result<Figures, String> {
    let side = side(kind);
    let number = |key: &str| {
        job[side][key].as_f64().ok_or_else(|| format!("fio's JSON has no number {side}.{key}"))
    };
    Ok(Figures { requests_per_second: number("iops")?, bytes_per_second: number("bw_bytes")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_past_other_lines() {
        let output = "fio: connected to NBD server\n{\"jobs\":[{\"error\":0,\
            \"read\":{\"iops\":2.5,\"bw_bytes\":1024},\"write\":{\"iops\":7,\"bw_bytes\":9}}]}\nbye\n";
        let read = parse(output, "randread").unwrap();
        assert_eq!((read.requests_per_second, read.bytes_per_second), (2.5, 1024.0));
        assert_eq!(parse(output, "write").unwrap().requests_per_second, 7.0);
    }

    #[test]
    fn broken_output_is_told() {
        for (output, part) in [
            ("nothing", "no JSON"),
            ("{\"jobs\":", "fio's JSON"),
            ("{\"jobs\":[{\"error\":5}]}", "error 5"),
            ("{\"jobs\":[{\"error\":0,\"read\":{}}]}", "read.iops"),
        ] {
            let told = parse(output, "read").unwrap_err();
            assert!(told.contains(part), "{output}: {told}");
        }
    }
}

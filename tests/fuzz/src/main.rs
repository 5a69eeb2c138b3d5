//! `fuzz`: the program behind `cargo xtask fuzz`.
//!
//! ```text
//! fuzz [TARGET...] [--seconds N]   searches, N seconds a target (default 60)
//! fuzz --replay TARGET FILE        runs one input
//! fuzz --seeds                     writes the seeds of all targets into the corpus
//! ```
//!
//! An input that makes the program's counters say something new joins the search, so the search is guided
//! by coverage where the build has counters (`fuzz::coverage`). Each input is run under `catch_unwind`; a
//! panic is written to `tests/fuzz/findings` with the line that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use disk::simulated::SplitMix64;
use fuzz::coverage::Seen;
use fuzz::{TARGETS, Target, corpus, mutate, target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(words) => {
            eprintln!("fuzz: {words}");
            ExitCode::FAILURE
        }
    }
}

/// The number of findings.
fn dispatch(arguments: &[String]) -> Result<usize, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--seeds"] => {
            for target in TARGETS {
                let written = corpus::write_seeds(target).map_err(|e| e.to_string())?;
                println!("{}: {written} seeds", target.name);
            }
            Ok(0)
        }
        ["--replay", name, file] => {
            let bytes = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
            (find(name)?.run)(&bytes);
            println!("{name}: nothing to say about {file}");
            Ok(0)
        }
        _ => search_all(&words),
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    target(name).ok_or_else(|| format!("no target `{name}`; there are {}", names()))
}

fn search_all(words: &[&str]) -> Result<usize, String> {
    let (mut seconds, mut chosen) = (60, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--seconds" {
            let value = words.next().ok_or("--seconds needs a number")?;
            seconds = value.parse().map_err(|_| format!("`{value}` is no number of seconds"))?;
        } else {
            chosen.push(find(word)?);
        }
    }
    if chosen.is_empty() {
        chosen.extend(TARGETS);
    }
    let mut findings = 0;
    for target in chosen {
        findings += search(target, Duration::from_secs(seconds))?;
    }
    Ok(findings)
}

/// Searches one target until its time is over or it was caught out ten times.
fn search(target: &Target, time: Duration) -> Result<usize, String> {
    let began = Instant::now();
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut random = SplitMix64::new(seed.map_or(0, |since| since.as_nanos() as u64));
    let mut seen = Seen::new();
    let (mut runs, mut findings) = (0u64, 0);
    let inputs = corpus::inputs(target).map_err(|e| format!("{}: {e}", target.name))?;
    let mut pool: Vec<Vec<u8>> = inputs.into_iter().map(|(_, bytes)| bytes).collect();
    for input in &pool {
        findings += usize::from(!attempt(target, input, &seen)?);
        seen.take();
        runs += 1;
    }
    let from_corpus = pool.len();
    while began.elapsed() < time && findings < 10 && !pool.is_empty() {
        // Half of the time what was found last, which has been tried least.
        let recent = pool.len().saturating_sub(pool.len() / 8 + 1);
        let from = if random.next_u64().is_multiple_of(2) { recent } else { 0 };
        let at = from + (random.next_u64() % (pool.len() - from) as u64) as usize;
        let other = (random.next_u64() % pool.len() as u64) as usize;
        let input = mutate::mutated(&pool[at], &pool[other], &mut random);
        let held = attempt(target, &input, &seen)?;
        runs += 1;
        findings += usize::from(!held);
        if seen.take() && held {
            pool.push(input);
        }
    }
    let guided = if seen.total() > 0 { "guided by coverage" } else { "blind, no counters" };
    println!(
        "{}: {runs} runs in {} s, {} of {} edges, {} inputs found, {findings} findings ({guided})",
        target.name,
        began.elapsed().as_secs(),
        seen.edges(),
        seen.total(),
        pool.len() - from_corpus,
    );
    Ok(findings)
}

/// Runs one input; false when it was a finding, which is then written down.
fn attempt(target: &Target, input: &[u8], seen: &Seen) -> Result<bool, String> {
    seen.reset();
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return Ok(true);
    }
    let folder = corpus::findings();
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let hash = blake3::hash(input).to_hex();
    let path = folder.join(format!("{}-{}", target.name, &hash[..12]));
    std::fs::write(&path, input).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("finding: cargo xtask fuzz --replay {} {}", target.name, path.display());
    Ok(false)
}

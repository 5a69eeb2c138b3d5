//! `kill_loop [--rounds N] [--seed S] [--pair SEED]`: the kill loop of `end_to_end::KillLoop`, for as many rounds
//! as one likes. Without a seed it takes one from the clock, and prints it.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use end_to_end::KillLoop;

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<KillLoop, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let mut kills = KillLoop { seed: now.as_secs(), rounds: 500, only_pair: None };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or(format!("{flag} needs a number"))?;
        let value: u64 = value.parse().map_err(|e| format!("{flag} {value}: {e}"))?;
        match flag.as_str() {
            "--rounds" => kills.rounds = value,
            "--seed" => kills.seed = value,
            "--pair" => kills.only_pair = Some(value),
            _ => return Err(format!("{flag} is not known")),
        }
    }
    Ok(kills)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(kills) => {
            print!("{}", kills.run());
            ExitCode::SUCCESS
        }
        Err(words) => {
            eprintln!("kill_loop: {words}");
            ExitCode::from(2)
        }
    }
}

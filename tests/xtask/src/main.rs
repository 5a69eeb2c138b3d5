//! The tasks of this repository: `cargo xtask test`, `tidy`, `bench`, `demo`, `sim`, `soak`, `fuzz`, `mutants`.
//!
//! They need nothing but Rust and, for the tests, a few Debian packages that are installed when
//! they are missing (`tools.rs`). Nothing here ships with the product.

mod advisories;
mod check;
mod fuzz;
mod licences;
mod mutants;
mod release;
mod suite;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("xtask: {words}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), String> {
    let (task, rest) = match arguments {
        [task, rest @ ..] => (task.as_str(), rest),
        [] => ("help", [].as_slice()),
    };
    let workspace = Workspace::open()?;
    match task {
        "test" => check::run(&workspace, &check::Options::parse(rest)?),
        "tidy" => tidy::run(&workspace),
        "bench" => release::bench(&workspace, rest),
        "demo" => release::demo(&workspace, rest),
        "sim" => release::sim(&workspace, rest),
        "soak" => release::soak(&workspace, rest),
        "fuzz" => fuzz::run(&workspace, rest),
        "mutants" => mutants::run(&workspace, rest),
        "help" | "--help" | "-h" => {
            print!("{}", help());
            Ok(())
        }
        other => Err(format!("no task `{other}`\n\n{}", help())),
    }
}

fn help() -> String {
    format!(
        "cargo xtask TASK

  test [--only STEP] [--skip-install]
      everything that has to hold before a change goes in; the steps are
{}
  tidy
      the house rules alone
  bench [NAME...]
      side-by-side measurements, release build
  demo [ARGUMENT...]
      the whole way from an empty replica to a proven one, release build
  sim [--seeds N] [--seed S [--without LIST] [--trace]]
      simulated histories, release build; a failing one is shrunk and shown; `--small`: small ones
  soak [--rounds N] [--hours H]
      N rounds of kills with real processes on xfs (500), then simulated histories of fresh seeds for H
      hours (1); release build, as root
  fuzz [TARGET...] [--seconds N] | --replay TARGET FILE | --seeds
      hostile bytes for every parser, guided by coverage, release build
  mutants [NAME...] [--list | --check]
      deliberate faults, each of which a named test has to find
",
        check::list()
    )
}

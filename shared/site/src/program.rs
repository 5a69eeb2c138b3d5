//! The start and the end that every binary has: log, runtime, and a problem as words and exit code.

use std::future::Future;
use std::process::ExitCode;

use disk::Context;

use crate::options::GlobalOptions;
use crate::printer::Printer;
use crate::runtime::Shutdown;
use crate::{Exit, Problem, runtime};

/// Starts the log (`log` is its filter when none is asked for), runs `main` to its end, and says what went
/// wrong, if anything did.
pub fn run<F>(
    global: &GlobalOptions,
    log: &str,
    main: impl FnOnce(Context, Shutdown, Printer) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), Problem>>,
{
    let printer = global.printer();
    if let Err(e) = global.start_log(log) {
        return printer.problem(&Problem::from(&e)).into();
    }
    let out = printer.clone();
    let outcome = runtime::run(|ctx, shutdown| main(ctx, shutdown, out)).unwrap_or_else(|e| {
        Err(Problem::new("runtime", format!("the program did not start: {e}"), Exit::OPERATOR))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => printer.problem(&problem).into(),
    }
}

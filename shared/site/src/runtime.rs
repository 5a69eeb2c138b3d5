//! The frame of a process: its runtime, its context, its signals, and what it says when it breaks.
//!
//! One thread with a `LocalSet`, as DESIGN section 5 has it. The first SIGINT or SIGTERM is a notice
//! that the process ends in good order; the second ends it at once.

use std::future::Future;
use std::io;
use std::panic::PanicHookInfo;

use disk::Context;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Tells whether the process was asked to end. Clones hear the same notice.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Gives the notice.
#[derive(Debug)]
pub struct ShutdownSender(watch::Sender<bool>);

impl ShutdownSender {
    /// Asks the process to end. May be repeated.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A notice that has not been given, and the means to give it.
    pub fn new() -> (ShutdownSender, Shutdown) {
        let (send, receive) = watch::channel(false);
        (ShutdownSender(send), Shutdown(receive))
    }

    /// Whether the notice was given.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the notice; for ever if nobody can give it any more.
    pub async fn wait(&self) {
        let mut receive = self.0.clone();
        if receive.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs `main` with the context of this machine on a fresh runtime, until it ends. Tasks that still
/// run then are dropped; what they had started on the disk runs to its end as long as the process
/// lives.
pub fn run<F, T>(main: impl FnOnce(Context, Shutdown) -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let result = local.block_on(&runtime, async {
        let (send, shutdown) = Shutdown::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::task::spawn_local(async move {
            let code = tokio::select! {
                biased;
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            tracing::info!("asked to end; once more ends at once");
            send.request();
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(code);
        });
        Ok(main(disk::real::context(), shutdown).await)
    });
    // A task that waits for a stuck disk must not hold up the end.
    runtime.shutdown_background();
    result
}

/// What a panic does to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// It ends with exit code 1: for a daemon, whose state could be half changed in memory. What is
    /// stored is whole at every moment.
    Exit,
    /// It unwinds.
    Unwind,
}

/// Makes a panic say what is safe and what to do, instead of a bare trace. `safe` is the sentence of
/// this program.
pub fn install_panic_hook(program: &'static str, safe: &'static str, then: OnPanic) {
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("{}", panic_words(program, safe, &describe(info)));
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
        if then == OnPanic::Exit {
            std::process::exit(1);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let place =
        info.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
    format!("{}{place}", text.unwrap_or_else(|| "no message".to_owned()))
}

fn panic_words(program: &str, safe: &str, what: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let problem = crate::Problem::bug(format!("{program} {version} has a bug: {what}")).safe(safe);
    problem.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn main_runs_with_a_context_and_its_result_comes_back() {
        let ms = run(|ctx, shutdown| async move {
            assert!(!shutdown.requested());
            tokio::task::spawn_local(async { 5 }).await.unwrap();
            ctx.unix_ms()
        });
        assert!(ms.unwrap() > 0);
    }

    #[test]
    fn a_notice_reaches_all_who_wait_and_who_come_later() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (send, shutdown) = Shutdown::new();
            let early = shutdown.clone();
            let waits = tokio::spawn(async move { early.wait().await });
            send.request();
            send.request();
            waits.await.unwrap();
            drop(send);
            shutdown.wait().await;
            assert!(shutdown.requested());
        });
    }

    #[test]
    fn without_a_giver_the_notice_never_comes() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (send, shutdown) = Shutdown::new();
            drop(send);
            assert!(tokio::time::timeout(Duration::from_secs(9), shutdown.wait()).await.is_err());
        });
    }

    #[test]
    fn a_panic_reads_like_any_problem() {
        let text = panic_words("primary-agent", "The volumes are safe.", "index (a.rs:5)");
        assert!(text.starts_with("error: primary-agent 0."), "{text}");
        assert!(text.contains("has a bug: index (a.rs:5) [bug]"), "{text}");
        assert!(text.contains("safe   The volumes are safe."), "{text}");
        assert!(text.contains("report"), "{text}");
    }
}

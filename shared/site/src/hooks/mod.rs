//! Hooks that quiesce the application around a cut.
//!
//! A frozen application that nobody thaws is the worst that a copy tool can do to it, so:
//! * a durable marker stands before the freeze begins and until the thaw has succeeded; a start that
//!   finds it thaws first ([`thaw_left_over`]);
//! * both hooks are run by a guard, a process of its own ([`guard`]), which thaws when it is told to,
//!   when the time is over, and when this process dies, in the middle of the freeze as well;
//! * the hook `fsfreeze:PATH` is refused where it would freeze what we write ourselves ([`target`]).
//!
//! Freeze, the time between, and thaw may take at most the timeout each. A thaw may be run more than
//! once and has to bear it. Hooks are shell commands of the operator, run with our rights.

mod guard;
mod marker;
mod target;

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::Context;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use guard::Guard;
pub use marker::Marker;

/// The longest marker, in bytes.
const MARKER_LIMIT: u64 = 64 << 10;

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// `fsfreeze:PATH`: freezes or thaws the file system that is mounted there.
    FsFreeze(PathBuf),
    /// A command for `/bin/sh`.
    Shell(String),
}

impl Hook {
    fn parse(text: &str) -> Result<Hook> {
        let refused =
            |reason: &str| Error::HookRefused { hook: text.to_owned(), reason: reason.to_owned() };
        match text.strip_prefix("fsfreeze:") {
            Some(path) if path.starts_with('/') => Ok(Hook::FsFreeze(PathBuf::from(path))),
            Some(_) => Err(refused("the path of a file system is absolute")),
            None if text.trim().is_empty() => Err(refused("it is empty")),
            None => Ok(Hook::Shell(text.to_owned())),
        }
    }

    /// As the operator wrote it.
    fn text(&self) -> String {
        match self {
            Hook::FsFreeze(path) => format!("fsfreeze:{}", path.display()),
            Hook::Shell(command) => command.clone(),
        }
    }

    fn freeze_command(&self) -> String {
        match self {
            Hook::FsFreeze(path) => format!("fsfreeze --freeze {}", quoted(path)),
            Hook::Shell(command) => command.clone(),
        }
    }

    fn thaw_command(&self) -> String {
        match self {
            // A file system that is not frozen answers EINVAL; that is as good as thawed.
            Hook::FsFreeze(path) => format!(
                "said=$(LC_ALL=C fsfreeze --unfreeze {} 2>&1) && exit 0\n\
                 echo \"$said\"; case $said in *'Invalid argument'*) exit 0;; *) exit 1;; esac",
                quoted(path)
            ),
            Hook::Shell(command) => command.clone(),
        }
    }
}

/// A path as one word of a shell command.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// What is run around a cut, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    freeze: Hook,
    thaw: Hook,
    timeout: Duration,
}

impl Hooks {
    /// Reads the options. `fsfreeze:PATH` thaws itself; any other freeze needs its thaw. `timeout` is
    /// rounded up to whole seconds.
    pub fn new(freeze: &str, thaw: Option<&str>, timeout: Duration) -> Result<Hooks> {
        let freeze = Hook::parse(freeze)?;
        let thaw = match (thaw, &freeze) {
            (Some(thaw), _) => Hook::parse(thaw)?,
            (None, Hook::FsFreeze(_)) => freeze.clone(),
            (None, Hook::Shell(command)) => {
                let reason = "a freeze hook needs a thaw hook".to_owned();
                return Err(Error::HookRefused { hook: command.clone(), reason });
            }
        };
        let timeout = Duration::from_secs(timeout.as_millis().div_ceil(1000).max(1) as u64);
        Ok(Hooks { freeze, thaw, timeout })
    }

    /// Refuses hooks that would freeze what we write ourselves. `own` are the state directory, side
    /// files and the files behind the exports; what does not exist yet counts as its directory.
    pub fn check(&self, own: &[PathBuf]) -> Result<()> {
        for hook in [&self.freeze, &self.thaw] {
            if let Hook::FsFreeze(path) = hook {
                target::check(path, own)
                    .map_err(|reason| Error::HookRefused { hook: hook.text(), reason })?;
            }
        }
        Ok(())
    }

    /// Freezes the application. When this fails it was thawed, or its marker stays.
    pub async fn freeze(&self, ctx: &Context, marker: &Path) -> Result<Frozen> {
        let content = Marker {
            thaw: self.thaw.clone(),
            timeout_ms: self.timeout.as_millis() as u64,
            boot_id: ctx.boot(),
        };
        let bytes = content.encode().map_err(Error::io("write", marker))?;
        ctx.storage.replace(marker, bytes.into()).await.map_err(Error::io("write", marker))?;
        let (freeze, thaw) = (self.freeze.freeze_command(), self.thaw.thaw_command());
        let mut guard = Guard::start(Some(&freeze), &thaw, self.timeout, marker)?;
        let frozen = guard.frozen().await;
        let thaw_hook = self.thaw.text();
        let mut frozen_now =
            Frozen { guard, ctx: ctx.clone(), marker: marker.to_owned(), thaw_hook };
        match frozen {
            Ok(()) => Ok(frozen_now),
            Err(reason) => {
                // The guard thaws by itself after a freeze that failed: it may have done half of it.
                let freeze_failed = Error::HookFailed { hook: self.freeze.text(), reason };
                frozen_now.finish().await?;
                Err(freeze_failed)
            }
        }
    }
}

/// An application that is frozen. Dropping it thaws, too, only that nobody waits for it and that the
/// marker stays.
#[must_use = "the application stands still until it is thawed"]
pub struct Frozen {
    guard: Guard,
    ctx: Context,
    marker: PathBuf,
    thaw_hook: String,
}

/// How a thaw went that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thawed {
    /// True when the application was frozen until it was told to go on. False when the time was over
    /// before: what was cut meanwhile may not be quiet.
    pub in_time: bool,
}

impl Frozen {
    /// Thaws and takes the marker away. When it fails the marker stays.
    pub async fn thaw(mut self) -> Result<Thawed> {
        self.guard.ask_to_thaw().await;
        self.finish().await
    }

    async fn finish(&mut self) -> Result<Thawed> {
        let in_time = self
            .guard
            .thawed()
            .await
            .map_err(|reason| Error::HookFailed { hook: self.thaw_hook.clone(), reason })?;
        forget(&self.ctx, &self.marker).await?;
        Ok(Thawed { in_time })
    }
}

/// Thaws what a process that died left frozen. Answers whether there was anything. When it fails the
/// marker stays, so that the next start tries again.
pub async fn thaw_left_over(ctx: &Context, marker: &Path) -> Result<bool> {
    let bytes = match ctx.storage.read_all(marker, MARKER_LIMIT).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(Error::io("read", marker))?,
    };
    let content = Marker::decode(&bytes).map_err(Error::io("understand", marker))?;
    let rebooted = content.boot_id != ctx.boot();
    if !(rebooted && matches!(content.thaw, Hook::FsFreeze(_))) {
        let limit = content.limit();
        let mut guard = Guard::start(None, &content.thaw.thaw_command(), limit, marker)?;
        guard
            .thawed()
            .await
            .map_err(|reason| Error::HookFailed { hook: content.thaw.text(), reason })?;
    }
    forget(ctx, marker).await?;
    Ok(true)
}

async fn forget(ctx: &Context, marker: &Path) -> Result<()> {
    ctx.storage.remove(marker).await.map_err(Error::io("remove", marker))?;
    let dir = marker.parent().unwrap_or(Path::new("/"));
    ctx.storage.sync_dir(dir).await.map_err(Error::io("sync", dir))
}

#[cfg(test)]
mod tests;

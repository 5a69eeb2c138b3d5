//! What the targets run on: one runtime a thread, keys that are always the same, and the volumes that
//! all files of the scenes speak of.

use std::future::Future;
use std::time::Duration;

use grain::{Geometry, GrainSize, VolumeShape};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use wire::SiteKeys;

/// Nothing takes so long unless it hangs.
const HANG: Duration = Duration::from_secs(20);

/// The keys of the golden media set of version 1, which is sealed for them.
pub const KEYS: &[u8] = include_bytes!("../../../shared/media/tests/golden/v1/peer.key");

thread_local! {
    static RUNTIME: Runtime = runtime();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs `work` with a `LocalSet`; panics when it hangs.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, async {
            tokio::time::timeout(HANG, work).await.expect("the parser hangs")
        })
    })
}

/// A site's keys, the same in every run.
pub fn keys() -> SiteKeys {
    SiteKeys::from_file_bytes(KEYS).expect("the golden keys")
}

/// Two volumes, the second with a short last grain.
pub fn geometry() -> Geometry {
    let volume = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    Geometry {
        grain: GrainSize::MIN,
        volumes: vec![volume("data", 1 << 20), volume("log", 10_000)],
    }
}

//! Samples of a session: the replica compares them with what it holds, before anything moves.

use grain::{Run, VolumeId};

use super::ServedSession;
use crate::protocol::Message;
use crate::{Error, Result};

/// Samples of one check at most.
const MAX_SAMPLES: u32 = 4096;

impl ServedSession<'_> {
    pub(super) async fn check(&self, samples: u32) -> Result<()> {
        let wanted = samples.min(MAX_SAMPLES);
        let picked = super::super::samples::pick(self.source, wanted, self.verdict.common).await?;
        self.connection.send_body(&Message::Samples, &picked).await
    }

    pub(super) async fn checked(&self, compared: u32, different: &[(u16, u64)]) -> Result<()> {
        if different.is_empty() {
            tracing::info!(compared, "fingerprint samples agree");
            return Ok(());
        }
        let volumes = self.source.volumes();
        let run = |(v, g): &(u16, u64)| Run { volume: VolumeId(*v), first: *g, count: 1 };
        let known = different.iter().map(run).filter(|run| volumes.holds(*run));
        let places = known.take(4).map(|run| volumes.place(run)).collect::<Vec<_>>().join(", ");
        Err(Error::Fingerprint(format!(
            "{} of {compared} samples differ: {places}",
            different.len()
        )))
    }
}

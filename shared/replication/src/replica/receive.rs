//! Grains that arrive: checked against the digest made where they were read, then into the journal or
//! the base.

use bytes::Bytes;
use grain::{Content, GrainData, Run};

use super::Replica;
use crate::source::digest;
use crate::{Error, Result};

/// Direct grains that may wait for a sync, in bytes.
const STRIKE_BYTES: u64 = 256 << 20;

impl Replica {
    /// Takes grains of the catch-up. Several may be under way at once.
    pub(super) async fn receive(&self, run: Run, payload: Option<(Bytes, [u8; 32])>) -> Result<()> {
        let content = match payload {
            None => Content::Zero,
            Some((bytes, expected)) => {
                let geometry = self.volumes.geometry();
                let range = geometry.byte_range(run.volume, run.first, run.count);
                if bytes.len() as u64 != range.end - range.start {
                    return Err(Error::Peer(format!(
                        "{} bytes for {run:?}, which has {}",
                        bytes.len(),
                        range.end - range.start
                    )));
                }
                if digest(&self.ctx, &bytes).await != expected {
                    return Err(Error::Peer(format!(
                        "the bytes of {run:?} do not match the digest made where they were read"
                    )));
                }
                let total = self.progress.received_bytes.get() + bytes.len() as u64;
                self.progress.received_bytes.set(total);
                return self.place(run, Content::Data(bytes), expected).await;
            }
        };
        self.place(run, content, [0; 32]).await
    }

    async fn place(&self, run: Run, content: Content, digest: [u8; 32]) -> Result<()> {
        let target = self.pull.borrow().as_ref().map(|pull| {
            (pull.expects(run), pull.is_direct(), pull.sessions().last().map(|s| s.session))
        });
        let Some((expected, direct, Some(session))) = target else {
            return Err(Error::Peer("grains outside of a catch-up".to_owned()));
        };
        if !expected {
            return Err(Error::Peer(format!("{run:?} was not asked for, or came twice")));
        }
        let data = GrainData { run, content };
        if direct {
            self.write_direct(&data).await?;
        } else {
            let appended = self.journal.append(session, 0, &data, digest).await;
            appended.map_err(|e| self.full(e))?;
        }
        self.arrived(run, direct);
        let grain = self.volumes.geometry().grain.bytes();
        let unsynced = self.pull.borrow().as_ref().map_or(0, |pull| pull.unsynced_len());
        if unsynced * grain > STRIKE_BYTES { self.strike_arrived().await } else { Ok(()) }
    }

    /// Into the base. Where a sync fails meanwhile it has not arrived.
    async fn write_direct(&self, data: &GrainData) -> Result<()> {
        let failed = self.volumes.failed_syncs();
        self.volumes.write(data).await?;
        self.volumes.none_failed_since(failed)
    }

    /// The source says that these grains are what the digests sent to it say. In a direct catch-up
    /// they are in the base and synced only after the next sync, like the others.
    pub(super) async fn receive_same(&self, run: Run) -> Result<()> {
        let target = self.pull.borrow().as_ref().map(|p| (p.expects(run), p.is_direct()));
        let Some((true, direct)) = target else {
            return Err(Error::Peer(format!("{run:?} was not asked for, or came twice")));
        };
        if direct && self.lost_a_sync() {
            // The digests are of pages that may never reach the disk unless they are written again.
            let bytes = self.volumes.read(run).await?;
            self.write_direct(&GrainData { run, content: Content::Data(bytes) }).await?;
        }
        self.progress.same_grains.set(self.progress.same_grains.get() + run.count);
        self.arrived(run, direct);
        Ok(())
    }

    /// The source's disk does not give these. They stay asked for until the commit settles what that
    /// means.
    pub(super) fn receive_unreadable(&self, run: Run) -> Result<()> {
        let pull = self.pull.borrow();
        let Some(pull) = pull.as_ref().filter(|pull| pull.expects(run)) else {
            return Err(Error::Peer(format!("{run:?} was not asked for, or came twice")));
        };
        if !pull.cannot_come(run) {
            return Err(Error::Peer("it can read next to nothing".to_owned()));
        }
        tracing::error!(place = self.volumes.place(run), "the source cannot read this");
        Ok(())
    }

    fn arrived(&self, run: Run, in_base: bool) {
        if let Some(pull) = self.pull.borrow().as_ref() {
            let failed = self.volumes.failed_syncs();
            pull.arrived(run, in_base.then_some(failed));
        }
        let grains = self.progress.received_grains.get() + run.count;
        self.progress.received_grains.set(grains);
    }
}

//! Samples of the source, compared with what this side holds before anything moves.

use grain::{Run, VolumeId};

use super::{Following, answer};
use crate::protocol::{Inbox, Message, Sample, body, unexpected};
use crate::{Error, Result};

impl Following<'_> {
    pub(super) async fn check(&self, inbox: &mut Inbox) -> Result<()> {
        self.connection.send(&Message::Check { samples: self.settings.samples }).await?;
        let (message, payload) = answer(inbox).await?;
        if message != Message::Samples {
            return Err(unexpected(&message));
        }
        let samples: Vec<Sample> = body(&payload)?;
        if samples.len() > self.settings.samples as usize {
            return Err(Error::Peer("more samples than were asked for".to_owned()));
        }
        let (compared, different) = self.replica.compare_samples(&samples).await?;
        let checked = Message::Checked { compared, different: different.clone() };
        self.connection.send(&checked).await?;
        if let Some((volume, grain)) = different.first() {
            let run = Run { volume: VolumeId(*volume), first: *grain, count: 1 };
            return Err(Error::Fingerprint(format!(
                "{} of {compared} samples differ, the first at {}; nothing was written. \
                 `serve --compare` finds and pulls what differs",
                different.len(),
                self.replica.volumes().place(run)
            )));
        }
        let now = self.replica.context().unix_ms();
        self.replica.check_due.set(false);
        self.replica
            .store()
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.proof.samples = u64::from(compared);
                    replica.proof.unix_ms = Some(now);
                }
            })
            .await
    }
}

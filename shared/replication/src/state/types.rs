//! What a site knows about its relationship, as it stands in `state.json`.

use std::path::PathBuf;

use grain::fingerprint::Fingerprint;
use grain::{
    CutId, Geometry, HistoryId, LayerId, LayerName, Lineage, RelationshipId, Run, SessionId, SetId,
};
use serde::{Deserialize, Serialize};

use super::Mode;

/// The version of the format written.
pub const STATE_VERSION: u32 = 1;

/// Which part a site plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Serves the volumes to applications.
    Source,
    /// Receives them.
    Replica,
}

/// Everything durable about a relationship at one site, but for maps, journal and volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The same at all sites.
    pub relationship: RelationshipId,
    /// The operator's name for it.
    pub name: String,
    /// Grain size and volumes.
    pub geometry: Geometry,
    /// Path of each volume, in the order of the geometry.
    pub volumes: Vec<PathBuf>,
    /// Present role.
    pub role: Role,
    /// The site's cuts, newest last.
    pub lineage: Lineage,
    /// The newest cut before which the base is known to be synced.
    pub synced: Option<CutId>,
    /// The layer files.
    pub layers: LayerTable,
    /// The other ends.
    pub peers: Vec<Peer>,
    /// Media sets made here.
    pub sets: Vec<SetRecord>,
    /// Why the source is suspect, if it is.
    pub suspect: Option<String>,
    /// How the last run began and ended.
    pub run: RunRecord,
    /// What only a replica has.
    pub replica: Option<ReplicaState>,
    /// The cut of this source's promotion, as long as a peer may not know it.
    #[serde(default)]
    pub promoted: Option<CutId>,
    /// The newest cuts that people have named here, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bookmarks: Vec<Bookmark>,
    /// What the promotion of this source left in the journal, as long as some of it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogRecord>,
}

/// What a promotion left in the journal: it counts, and is not in the volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogRecord {
    /// Two copies of the map of the grains that wait.
    pub maps: [LayerRef; 2],
    /// The journal's directory.
    pub journal: PathBuf,
}

/// A cut with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// The cut.
    pub cut: CutId,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub unix_ms: u64,
}

/// How the last run began and ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Boot id (hex) of the machine when the site was last started.
    pub boot: String,
    /// Present after a clean stop.
    pub seal: Option<Seal>,
    /// Grains that only a power cut made count as written, by map file number.
    pub suspected: Option<LayerRef>,
    /// With a seal: how many writes the source's open epoch had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Boot id (hex) in which a sync of the volumes failed: until the next boot what is read from
    /// them need not be what a power cut leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_sync: Option<String>,
}

impl RunRecord {
    /// A site starts in the boot of this id (hex).
    pub(crate) fn begin(&mut self, boot: String) {
        self.lost_sync = self.lost_sync.take().filter(|lost| *lost == boot);
        (self.boot, self.seal) = (boot, None);
    }
}

/// What the volumes looked like when the site stopped cleanly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Wall-clock time of the stop.
    pub unix_ms: u64,
    /// One entry a volume.
    pub volumes: Vec<VolumeSeal>,
}

/// One volume at a clean stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSeal {
    /// Size in bytes.
    pub bytes: u64,
    /// Sampled grains and the BLAKE3 of each, in hex.
    pub samples: Vec<(u64, String)>,
}

/// A map file by number, and the id it carried when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// Number in the file's name.
    pub file: u32,
    /// Id in its header.
    pub id: LayerId,
}

/// A closed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedLayer {
    /// Its file.
    #[serde(flatten)]
    pub at: LayerRef,
    /// Which epochs it covers.
    pub name: LayerName,
    /// How many grains are in it.
    pub grains: u64,
}

/// All layer files that the state knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTable {
    /// The first number never used.
    pub next_file: u32,
    /// The open layer, of the epoch that the newest cut opened.
    pub open: Option<LayerRef>,
    /// Closed layers, oldest first.
    pub closed: Vec<ClosedLayer>,
    /// Files to recycle, with the ids of the layers that they held.
    pub free: Vec<LayerRef>,
    /// At a promoted site: the oldest cut at which a replica of the former source stood. Its name is kept, so
    /// that what came after it is known when that replica asks; its layers are kept as history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<CutId>,
}

/// The other end as this site sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its identity, one line of text.
    pub identity: String,
    /// The newest cut that it acknowledged as committed.
    pub acked: Option<CutId>,
    /// Cuts published to it and not acknowledged, oldest first.
    pub published: Vec<CutId>,
    /// Since when replies were given that the peer does not have.
    pub alone: Option<AloneMark>,
    /// Where to dial it; empty where it dials.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// How changes reach it.
    #[serde(default)]
    pub mode: Mode,
    /// What its newest verification found.
    #[serde(default)]
    pub verified: Option<super::Verified>,
}

impl Peer {
    /// One that has acknowledged nothing.
    pub fn new(identity: String) -> Peer {
        let (published, addresses, mode) = (Vec::new(), Vec::new(), Mode::default());
        let (acked, alone, verified) = (None, None, None);
        Peer { identity, acked, published, alone, addresses, mode, verified }
    }
}

/// Replies were given without a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AloneMark {
    /// The head of the lineage when the mark was made.
    pub since: CutId,
    /// What the peer last acknowledged then.
    pub acked: Option<CutId>,
    /// Wall-clock time.
    pub unix_ms: u64,
}

/// How far a media set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetStage {
    /// Being written.
    Writing,
    /// Complete: its directory is signed and on the media.
    Finished,
    /// Given up.
    Cancelled,
}

/// A media set made at this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    /// Its id.
    pub id: SetId,
    /// The cut it holds.
    pub cut: CutId,
    /// The cut after which a fuzzy set is passed; none when it is exact.
    pub end: Option<CutId>,
    /// How far it is.
    pub stage: SetStage,
    /// Directories it is written to.
    pub media: Vec<PathBuf>,
    /// When it was begun.
    pub unix_ms: u64,
    /// Options as given, to resume with.
    pub options: serde_json::Value,
    /// Root digest (hex) once finished.
    pub root_digest: Option<String>,
    /// The fingerprint of what is on the media, once finished.
    pub fingerprint: Option<Fingerprint>,
    /// Grains that could not be read here and are not on the media.
    pub unreadable_grains: u64,
    /// Bytes on the media once finished.
    pub media_bytes: u64,
}

/// What only a replica has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// The source's identity, pinned by the ticket.
    pub source: String,
    /// Where to dial.
    pub addresses: Vec<String>,
    /// The set that seeds this replica.
    pub seed: Option<SeedRecord>,
    /// Grains damaged on the media: will be pulled.
    pub damaged: Option<LayerRef>,
    /// Of what is missing: grains that the source said at the last catch-up it cannot read.
    pub unreadable: Vec<Run>,
    /// Grains on media that have not been loaded yet.
    pub unloaded: Option<LayerRef>,
    /// A fuzzy set's end cut; gone once a committed cut at or after it is held.
    pub fuzzy_end: Option<CutId>,
    /// An unfinished catch-up.
    pub pull: Option<PullRecord>,
    /// The journal's number of the newest commit that this state has taken over.
    pub commit_number: u64,
    /// Wall-clock time of the newest committed cut.
    pub committed_unix_ms: Option<u64>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_label: Option<String>,
    /// Layers up to this cut are needed by nobody, the source says.
    pub floor: Option<CutId>,
    /// What has been proven of the seed, and when.
    pub proof: Proof,
    /// The newest fingerprint taken at a committed cut.
    pub generation: Option<Generation>,
    /// A former source: its content gives way.
    #[serde(default)]
    pub loser: Option<Loser>,
    /// A former source that handed its role to the site that it follows now, which may not know it yet.
    #[serde(default)]
    pub relinquished: bool,
    /// What a stream brought after the newest committed cut, once that stream has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streamed: Option<Streamed>,
    /// How the source keeps this replica, as it last told; kept over a change of roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The history that misses nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryRecord>,
}

/// A history of the replica that misses nothing which was overwritten since it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Its id: another one in the directory is not this one.
    pub id: HistoryId,
    /// Commits from this number on are points of it.
    pub from: u64,
    /// Where it is kept.
    pub dir: PathBuf,
}

/// Where a stream ended: the replica holds this much of the epoch after its newest cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// That cut.
    pub cut: CutId,
    /// The last sequence number.
    pub sequence: u64,
    /// The grains written since the cut.
    pub layer: LayerRef,
}

/// The operator's durable word that what this site holds beyond the common cut gives way to the source
/// (rule 11). Gone with the first commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loser {
    /// The newest cut that both had when the word was given.
    pub common: CutId,
    /// Grains written here since then, at most.
    pub grains: u64,
    /// When the word was given.
    pub unix_ms: u64,
}

/// What share of a replica is proven, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Grains whose bytes were checked against digests signed by the source.
    pub digest_grains: u64,
    /// Samples compared at the last attach.
    pub samples: u64,
    /// When.
    pub unix_ms: Option<u64>,
    /// What the newest verification found.
    #[serde(default)]
    pub verified: Option<super::Verified>,
}

/// The set that seeded a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedRecord {
    /// Which set.
    pub set: SetId,
    /// The cut it holds.
    pub cut: CutId,
    /// Media loaded so far, by number.
    pub loaded: Vec<u32>,
    /// Media of the set.
    pub media: u32,
    /// The fingerprint that the source signed.
    pub fingerprint: Fingerprint,
    /// That of the volumes once everything of the set was loaded, read back from them.
    pub loaded_fingerprint: Option<Fingerprint>,
}

impl SeedRecord {
    /// Everything was loaded, and the volumes do not hold what the source signed.
    pub fn differs(&self) -> bool {
        self.loaded_fingerprint.is_some_and(|found| found != self.fingerprint)
    }
}

/// A fingerprint of the volumes as they stand at a committed cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The cut.
    pub cut: CutId,
    /// When it was taken.
    pub unix_ms: u64,
    /// The number.
    pub fingerprint: Fingerprint,
}

/// An unfinished catch-up: one or more sessions whose grains wait for a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRecord {
    /// Sessions in the order of their cuts, the newest last.
    pub sessions: Vec<PullSession>,
    /// Written straight into the base; shown as inconsistent until the commit.
    pub direct: bool,
    /// What the newest session still has to receive, by map file.
    pub remaining: LayerRef,
    /// The whole union agreed on, which the commit records as a layer.
    pub union: LayerRef,
    /// The newest cut that both sites had when it began; none for a comparison without one.
    pub common: Option<CutId>,
    /// The source's lineage up to the newest session's cut, which the commit adopts.
    pub lineage: Lineage,
    /// When that cut was made.
    pub unix_ms: u64,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// One session of a catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSession {
    /// Its id.
    pub session: SessionId,
    /// The cut that it pulls.
    pub cut: CutId,
    /// Grains that stood durably in the journal when a later session took over from it: what it brought
    /// stands in no map any more. 0 for the newest.
    #[serde(default)]
    pub carried: u64,
}

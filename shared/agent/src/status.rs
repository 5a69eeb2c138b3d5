//! What `status` shows: plain data, for people and as `--json`. Fields are described where they are declared;
//! names are only ever added.

use grain::{Geometry, GrainSet, Run};
use replication::AtRest;
use replication::state::{Role, State};
use serde::{Deserialize, Serialize};
use site::amount::counted;

use crate::past::PastStatus;
use crate::{VerifiedStatus, VerifyProgress};

/// Places named at most.
const PLACES: usize = 8;

/// The status of a relationship at one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this structure.
    pub schema: u32,
    /// The relationship's name here.
    pub name: String,
    /// Its id.
    pub relationship: String,
    /// `source` or `replica`.
    pub role: String,
    /// One of the states of DESIGN.md section 1, or `stopped`.
    pub state: String,
    /// What that means for the operator, and what to do.
    pub explanation: String,
    /// Whether a `serve` runs.
    pub running: bool,
    /// Wall-clock time of this status, milliseconds since 1970.
    pub unix_ms: u64,
    /// Grain size in bytes.
    pub grain_bytes: u64,
    /// The volumes.
    pub volumes: Vec<VolumeStatus>,
    /// The newest cut that the site holds.
    pub position: Option<CutStatus>,
    /// Written here and not at every peer (source), or written at the source and not here, as far as
    /// it told (replica).
    pub dirty: Amount,
    /// Of it, only because of a power cut: compared by digest before it moves.
    pub suspected: Amount,
    /// Damaged on the media: will be pulled.
    pub damaged: Amount,
    /// On media that were not loaded yet.
    pub not_loaded: Amount,
    /// Missing because the source could not read it (at a replica), or that it cannot read (at the
    /// source, in the present sessions).
    pub unreadable: Amount,
    /// The first places of it, in words.
    pub unreadable_places: Vec<String>,
    /// What cannot be told while the agent does not run.
    pub not_known: Vec<String>,
    /// The peers, or the source.
    pub peers: Vec<PeerStatus>,
    /// The job under way, or the last one.
    pub job: Option<JobStatus>,
    /// Layers held.
    pub layers: Vec<LayerStatus>,
    /// Media sets made here, or the one loaded here.
    pub sets: Vec<SetStatus>,
    /// What has been proven of a replica.
    pub proof: Option<ProofStatus>,
    /// The verification under way.
    #[serde(default)]
    pub verifying: Option<VerifyProgress>,
    /// What the newest verification of a replica found.
    #[serde(default)]
    pub verified: Option<VerifiedStatus>,
    /// What a replica keeps of its past, and who looks at it.
    #[serde(default)]
    pub past: Option<PastStatus>,
    /// The newest fingerprint taken at a committed cut of a replica.
    pub generation: Option<GenerationStatus>,
    /// Bytes that a power cut now would make suspected.
    pub crash_excess_bytes: u64,
    /// Bytes that wait in the journal since this site was promoted: they are served from there.
    #[serde(default)]
    pub backlog_bytes: u64,
    /// Bytes of them that the journal does not give any more.
    #[serde(default)]
    pub backlog_lost_bytes: u64,
    /// Longest time, in microseconds, that a cut kept writers waiting.
    pub longest_pause_us: u64,
    /// What happened lately, oldest first.
    pub events: Vec<Event>,
}

/// Grains and the bytes they cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Grains.
    pub grains: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its exported name.
    pub alias: String,
    /// Where it is.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutStatus {
    /// Its id.
    pub cut: String,
    /// When it was made, milliseconds since 1970.
    pub unix_ms: u64,
    /// Why.
    pub reason: String,
}

/// The other end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its identity.
    pub identity: String,
    /// The short form to read over the telephone.
    pub fingerprint: String,
    /// Whether a session is up.
    pub connected: bool,
    /// Its address, when connected.
    pub remote: Option<String>,
    /// The newest cut that it has committed (at a source).
    pub acknowledged: Option<String>,
    /// What was written since then (at a source).
    #[serde(default)]
    pub dirty: Option<Amount>,
    /// Since when replies were given that it does not have.
    pub alone_since_unix_ms: Option<u64>,
    /// The rule of the last attach.
    pub rule: Option<String>,
    /// The last error of the session, in words.
    pub last_error: Option<String>,
    /// Payload bytes over the link since it came up.
    pub link_bytes: u64,
    /// What went over it as it travelled.
    #[serde(default)]
    pub wire: Option<WireStatus>,
    /// While it catches up: when it will be in step (at a source).
    #[serde(default)]
    pub forecast: Option<ForecastStatus>,
    /// Grains of the present catch-up, and how many of them are done.
    pub catch_up: Option<Progress>,
    /// What its newest verification found (at a source).
    #[serde(default)]
    pub verified: Option<VerifiedStatus>,
    /// How it is kept: `sync`, `async`, `cycle`, with what belongs to it.
    pub mode: Option<String>,
    /// The stream, in the modes that have one.
    pub mirror: Option<MirrorStatus>,
}

/// A link: bytes of frames as they travel, after compression and before TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireStatus {
    /// Bytes sent from here.
    pub sent_bytes: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// The last round trip that was measured, in microseconds.
    pub round_trip_us: Option<u64>,
}

impl From<wire::link::LinkCounters> for WireStatus {
    fn from(counters: wire::link::LinkCounters) -> WireStatus {
        WireStatus {
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            round_trip_us: counters.round_trip.map(|time| time.as_micros() as u64),
        }
    }
}

/// Whether a catch-up comes to an end, by what was measured in the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastStatus {
    /// Bytes that the replica lacks now.
    pub behind_bytes: u64,
    /// Bytes of them that the link carries a second.
    pub carried_bytes_s: u64,
    /// Bytes that are newly written a second: grains that have to travel, or travel again.
    pub written_bytes_s: u64,
    /// Milliseconds until it is in step, if both go on like this; none when it will not be.
    pub in_step_in_ms: Option<u64>,
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Everything written here goes to the peer in order (source); writes of the source arrive (replica).
    pub mirroring: bool,
    /// Bytes that the peer has not confirmed (source), or that the source had not heard confirmed when it
    /// last wrote something (replica).
    pub backlog_bytes: u64,
    /// Milliseconds that the oldest of them has waited.
    pub lag_ms: u64,
    /// Writes streamed since the link came up.
    pub writes: u64,
    /// Streams that ended because the peer was too slow.
    pub overflows: u64,
    /// Why the last stream ended.
    pub ended: Option<String>,
}

/// How far something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Of how many grains.
    pub total_grains: u64,
    /// How many are done.
    pub done_grains: u64,
    /// Bytes moved.
    pub bytes: u64,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// `dump` or `load`.
    pub kind: String,
    /// `running`, `done`, `failed`, `cancelled`, `interrupted`.
    pub stage: String,
    /// The media set.
    pub set: String,
    /// Its media.
    pub media: Vec<String>,
    /// How far.
    pub progress: Progress,
    /// Bytes on each medium.
    pub medium_bytes: Vec<u64>,
    /// Grains preserved for it.
    pub preserved_grains: u64,
    /// True when the set is no point in time before the first catch-up.
    pub fuzzy: bool,
    /// Seconds since it began, or that it took.
    pub seconds: f64,
    /// What went wrong.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<serde_json::Value>,
}

/// A layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// The cut that opens its epoch.
    pub from: String,
    /// The cut that closes it; none for the open layer.
    pub to: Option<String>,
    /// Grains written in it.
    pub grains: u64,
    /// Who needs it.
    pub kept_for: String,
}

/// A media set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatus {
    /// Its id.
    pub set: String,
    /// The cut it holds.
    pub cut: String,
    /// `writing`, `finished`, `cancelled`, `loaded`, `loading`.
    pub stage: String,
    /// Its media.
    pub media: Vec<String>,
    /// True when it is fuzzy.
    pub fuzzy: bool,
    /// Grains that the source could not read: they are on no medium.
    pub unreadable_grains: u64,
    /// Bytes on the media.
    pub bytes: u64,
    /// When it was begun.
    pub unix_ms: u64,
    /// The fingerprint of what is on the media.
    pub fingerprint: Option<String>,
    /// That of what was loaded from them, once all of it was.
    pub loaded_fingerprint: Option<String>,
}

/// What has been proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// Share of all grains whose bytes were checked against digests signed by the source, 0 to 1.
    pub share: f64,
    /// Samples compared at the last attach.
    pub samples: u64,
    /// When.
    pub unix_ms: Option<u64>,
}

/// A fingerprint of the volumes at a committed cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// The cut.
    pub cut: String,
    /// When it was taken, milliseconds since 1970.
    pub unix_ms: u64,
    /// The fingerprint.
    pub fingerprint: String,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub text: String,
}

/// What the next step will move, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One step a peer.
    pub steps: Vec<PlanStep>,
}

/// What one peer will get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// The peer's fingerprint.
    pub peer: String,
    /// The rule of the last attach, if there was one.
    pub rule: Option<String>,
    /// By which means.
    pub means: String,
    /// At most so much.
    pub amount: Amount,
    /// Of it, compared by digest before it moves.
    pub compared_first: Amount,
}

/// What the durable state alone says: the beginning of every status.
pub fn of_state(s: &State) -> Status {
    let grain = s.geometry.grain.bytes();
    let cut = s.lineage.head().map(|c| CutStatus {
        cut: c.id.to_string(),
        unix_ms: c.unix_ms,
        reason: format!("{:?}", c.reason).to_lowercase(),
    });
    let volume = |(shape, path): (&grain::VolumeShape, &std::path::PathBuf)| VolumeStatus {
        alias: shape.alias.clone(),
        path: path.display().to_string(),
        bytes: shape.bytes,
    };
    let layer = |c: &replication::state::ClosedLayer| LayerStatus {
        from: c.name.from.to_string(),
        to: Some(c.name.to.to_string()),
        grains: c.grains,
        kept_for: kept_for(s, &c.name),
    };
    Status {
        schema: 1,
        name: s.name.clone(),
        relationship: s.relationship.to_string(),
        role: match s.role {
            Role::Source => "source",
            Role::Replica => "replica",
        }
        .to_owned(),
        state: "stopped".to_owned(),
        explanation: "the agent does not run".to_owned(),
        grain_bytes: grain,
        volumes: s.geometry.volumes.iter().zip(&s.volumes).map(volume).collect(),
        position: cut,
        layers: s.layers.closed.iter().map(layer).collect(),
        verified: s
            .replica
            .as_ref()
            .and_then(|r| r.proof.verified.as_ref())
            .map(|verified| VerifiedStatus::of(verified, &s.geometry)),
        ..Status::default()
    }
}

impl Status {
    /// Notes grains that the source cannot read.
    pub(crate) fn note_unreadable(&mut self, grains: &GrainSet, geometry: &Geometry) {
        self.unreadable = amount_of(grains, geometry);
        let places = grains.runs().take(PLACES);
        self.unreadable_places = places.map(|run| place(run, geometry)).collect();
    }
}

/// A place in words, for people who look for it with their own tools.
pub(crate) fn place(run: Run, geometry: &Geometry) -> String {
    let range = geometry.byte_range(run.volume, run.first, run.count);
    let alias = geometry.volumes.get(run.volume.index()).map_or("?", |v| &v.alias);
    format!("bytes {}..{} of volume {alias}", range.start, range.end)
}

/// Grains and their bytes.
pub(crate) fn amount_of(grains: &GrainSet, geometry: &Geometry) -> Amount {
    Amount { grains: grains.len(), bytes: grains.bytes(geometry) }
}

/// The status of a site whose agent does not run: its state, and what its maps say.
pub fn of_rest(s: &State, rest: &AtRest) -> Status {
    let mut status = of_state(s);
    let amount = |set: &Option<GrainSet>| {
        set.as_ref().map_or_else(Amount::default, |set| amount_of(set, &s.geometry))
    };
    status.dirty = amount(&rest.dirty);
    status.suspected = amount_of(&rest.suspected, &s.geometry);
    status.damaged = amount(&rest.damaged);
    status.not_loaded = amount(&rest.unloaded);
    status.not_known = rest.unknown.clone();
    if let Some(why) = s.suspect.as_ref().filter(|_| s.role == Role::Source) {
        status.state = "suspect".to_owned();
        status.explanation = format!("the agent does not run; {why}");
    }
    if let Some(condition) = rest.condition {
        // A replica's state is what its volumes are worth, whether an agent runs or not.
        status.state = condition.name().to_owned();
        status.explanation = format!("the agent does not run; the replica is {}", condition.name());
    }
    if let Some(replica) = &s.replica {
        let unreadable = replica.unreadable.iter().copied().collect();
        status.note_unreadable(&unreadable, &s.geometry);
    }
    status
}

/// Who needs a layer, in words.
fn kept_for(s: &State, name: &grain::LayerName) -> String {
    let place = |cut| s.lineage.index_of(cut);
    let needed = |cut: Option<grain::CutId>| match (cut.and_then(place), place(name.to)) {
        (Some(at), Some(end)) => at < end,
        (None, _) => true,
        _ => false,
    };
    if s.role == Role::Replica {
        return "a source that was rolled back".to_owned();
    }
    let peers = s.peers.iter().filter(|p| needed(p.acked)).count();
    let sets = s.sets.iter().filter(|set| {
        set.stage != replication::state::SetStage::Cancelled && needed(Some(set.cut))
    });
    match (peers, sets.count()) {
        (0, 0) => "history".to_owned(),
        (0, sets) => counted(sets, "media set"),
        (peers, 0) => counted(peers, "peer"),
        (peers, sets) => format!("{}, {}", counted(peers, "peer"), counted(sets, "media set")),
    }
}

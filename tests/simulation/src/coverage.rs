//! What a set of histories has to have seen: a simulator that never reaches a thing does not test it.

use crate::trace::Coverage;

/// Adds one history's counts to those of all.
pub fn add(all: &mut Coverage, one: &Coverage) {
    for (name, count) in one {
        *all.entry(name.clone()).or_default() += count;
    }
}

/// Things that must happen in any set of some hundred histories: every fault, overflow, verdict, verb
/// and outcome but the rarest.
pub const EXPECTED: &[&str] = &[
    "checked: a damaged set does not open",
    "checked: a damaged set opens",
    "checked: a finished set",
    "checked: cuts are points in time",
    "checked: flushed is kept",
    "checked: no change missed",
    "checked: no silent full copy",
    "checked: replica consistent",
    "checked: replica empty",
    "checked: replica inconsistent",
    "checked: replica loading",
    "checked: rolled back, refused by ahead",
    "clock: jumps",
    "crash: killed",
    "crash: power cut",
    "cut: cycle",
    "cut: dump",
    "cut: start",
    "disk: EIO",
    "disk: EIO of a sync",
    "disk: ENOSPC",
    "disk: slow",
    "dump: failed",
    "dump: finished exact",
    "dump: finished fuzzy",
    "dump: preserved grains",
    "flip: journal",
    "flip: map",
    "flip: medium",
    "flip: state",
    "healed",
    "link: breaks in the middle of a frame",
    "link: corrupted",
    "link: cut by hand",
    "link: half open",
    "link: stalls",
    "load: again, nothing to do",
    "load: damage became missing grains",
    "load: fuzzy",
    "load: waits for media",
    "machine: image kept",
    "machine: replica rolled back",
    "machine: source rolled back",
    "media: damaged on the way",
    "media: shipped",
    "media: shipped in parts",
    "media: shipped twice",
    "media: stale",
    "media: swapped",
    "operator: the state is put right",
    "probe",
    "process: hangs",
    "request: answered inline",
    "request: flush",
    "request: read",
    "request: refused",
    "request: the client left before its answer",
    "request: write",
    "request: zero or trim",
    "session: in step",
    "session: journal",
    "session: link ended",
    "session: refused",
    "start: a power cut made grains suspected",
    "start: damaged state refused",
    "start: failed",
    "start: replica",
    "start: source",
    "stop: clean",
    "verb: cancel of a running dump",
    "verb: cancel of an unfinished dump",
    "verb: connect",
    "verb: cut",
    "verb: dump",
    "verb: dump refused",
    "verb: dump resumed",
    "verb: housekeep",
    "verb: load",
    "verb: load refused",
    "verdict: ahead",
    "verdict: delta",
    "verdict: in-step",
    "verdict: no-ancestor",
];

/// Which of the expected things never happened.
pub fn missing(all: &Coverage) -> Vec<&'static str> {
    EXPECTED.iter().filter(|name| !all.contains_key(**name)).copied().collect()
}

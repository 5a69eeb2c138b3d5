//! Messages of the replication protocol and the bodies that travel in payloads.
//!
//! The first byte says which type. What decodes encodes to the same bytes; facts that are valid have a
//! verdict, whatever they say.

use std::fmt::Debug;

use grain::attach::{CopyFacts, Facts, Role, decide};
use grain::{
    Cut, CutId, CutReason, Lineage, Position, RelationshipId, Run, SessionId, Span, VolumeId,
};
use replication::protocol::{
    Compared, Message, Refusal, Report, Sample, SetName, VerifyMessage, Want, body,
};
use replication::state::{Mode, OnLinkLoss, Verified};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::codec::encode;
use wire::frame::MAX_CONTROL_BYTES;

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "message",
    run,
    seeds,
    // Sequences of structs may reserve 1 MiB before their elements are there (`wire::codec`), here a
    // few at a time.
    allocation: Allocation { constant_bytes: 8 << 20, per_byte: 64 },
};

fn run(data: &[u8]) {
    let (kind, rest) = data.split_first().unwrap_or((&0, &[]));
    match kind % 6 {
        0 => {
            if let Ok(message) = wire::codec::decode::<Message>(rest, MAX_CONTROL_BYTES) {
                assert_eq!(encode(&message).expect("what was decoded"), rest);
            }
        }
        1 => facts(rest),
        2 => same::<Vec<Sample>>(rest),
        3 => same::<Lineage>(rest),
        4 => compared(rest),
        _ => same::<Report>(rest),
    }
}

fn same<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = body::<T>(bytes) else { return };
    let again = body::<T>(&encode(&value).expect("what was decoded"));
    assert_eq!(again.expect("its own encoding"), value);
}

fn compared(bytes: &[u8]) {
    same::<Compared>(bytes);
    let asked = Run { volume: VolumeId(0), first: 8, count: 64 };
    let Ok(compared) = body::<Compared>(bytes) else { return };
    if let Ok((different, unreadable)) = compared.sets(asked) {
        let mut both = different;
        both.union_with(&unreadable);
        assert!(both.len() <= asked.count && both.runs().all(|r| r.end() <= asked.end()));
    }
}

fn facts(bytes: &[u8]) {
    let Ok(theirs) = body::<Facts>(bytes) else { return };
    if theirs.validate().is_err() {
        return;
    }
    theirs.hash().expect("valid facts have a hash");
    for mine in [own(Role::Source), own(Role::Replica), theirs.clone()] {
        let (here, there) = (decide(&mine, &theirs), decide(&theirs, &mine));
        drop((here, there));
    }
}

fn own(role: Role) -> Facts {
    let mut lineage = Lineage::new();
    for n in 1..4 {
        let id = CutId::from_bytes([n; 16]);
        let parent = (n > 1).then(|| CutId::from_bytes([n - 1; 16]));
        let cut = Cut { id, parent, unix_ms: u64::from(n), reason: CutReason::Cycle };
        lineage.push(cut, None).expect("a chain");
    }
    Facts {
        relationship: RelationshipId::from_bytes([2; 16]),
        geometry: stage::geometry(),
        role,
        suspect: false,
        relinquished: false,
        promoted: None,
        alone: None,
        lineage,
        sequence: 3,
        layers: Vec::new(),
        open_grains: 5,
        copy: CopyFacts { consistent: true, ..CopyFacts::default() },
        open_within: None,
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let run = Run { volume: VolumeId(0), first: 1, count: 2 };
    let span = Span { volume: VolumeId(1), start: 513, bytes: 77 };
    let cut = CutId::from_bytes([1; 16]);
    let session = SessionId::from_bytes([4; 16]);
    let messages = [
        ("facts-follow", Message::Facts),
        ("echo", Message::Echo { hash: [7; 32] }),
        ("refuse", Message::Refuse(Refusal { code: "busy".into(), text: "later".into() })),
        ("checked", Message::Checked { compared: 3, different: vec![(0, 1), (1, 2)] }),
        ("set", Message::Set { name: SetName::Layer(3) }),
        ("begin", Message::Begin { want: Want::Compare }),
        (
            "catch-up",
            Message::CatchUp {
                session,
                cut,
                since: Some(cut),
                carries: Some(session),
                unix_ms: 9,
                label: Some("before".to_owned()),
            },
        ),
        ("pull", Message::Pull { number: 1, runs: vec![run; 3] }),
        ("data", Message::Data { run, digest: [3; 32] }),
        ("broken", Message::Broken { text: "disk".into() }),
        (
            "settled",
            Message::Settled {
                floor: Some(cut),
                remaining: 1,
                remaining_bytes: 2,
                mode: Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms: 5 } },
            },
        ),
        (
            "write",
            Message::Write { number: 7, sequence: 5, span, digest: [9; 32], behind: 1 << 20 },
        ),
        ("clear", Message::Clear { number: 8, sequence: 6, span, behind: 0 }),
        ("stream-cut", Message::StreamCut { number: 9, cut, unix_ms: 4, floor: None, label: None }),
        ("received", Message::Received { received: 9, durable: 7 }),
        ("left", Message::Left { position: Position { cut, sequence: 6 } }),
        ("verify-mine", Message::Verify(VerifyMessage::Mine { pass: 1, run })),
        ("verify-ready", Message::Verify(VerifyMessage::Ready { pass: 1, cut })),
    ];
    let with = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let coded = |message: &Message| with(0, encode(message).expect("a message"));
    let mut found: Vec<(String, Vec<u8>)> =
        messages.iter().map(|(name, message)| ((*name).to_owned(), coded(message))).collect();
    let mut bodies =
        |name: &str, kind, bytes: Vec<u8>| found.push((name.into(), with(kind, bytes)));
    bodies("source-facts", 1, encode(&own(Role::Source)).expect("facts"));
    bodies("replica-facts", 1, encode(&own(Role::Replica)).expect("facts"));
    let sample = Sample { volume: 1, grain: 2, sha1: [5; 20] };
    bodies("samples", 2, encode(&vec![sample; 3]).expect("samples"));
    bodies("lineage", 3, encode(&own(Role::Source).lineage).expect("a lineage"));
    let different = vec![Run { volume: VolumeId(0), first: 9, count: 3 }];
    let compared = Compared { compared: 60, different: different.clone(), ..Compared::default() };
    bodies("compared", 4, encode(&compared).expect("an answer"));
    let verified = Verified { places: different, cut: Some(cut), ..Verified::default() };
    bodies("report", 5, encode(&Report::Ok(verified)).expect("a report"));
    let refusal = Refusal { code: "state".into(), text: "later".into() };
    bodies("report-refused", 5, encode(&Report::Err(refusal)).expect("a report"));
    found
}

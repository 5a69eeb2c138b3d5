//! The crate's lineage functions against vectors from the executable model of the rules
//! (`export.py` made `lineage.json`; the model is another implementation, in another language).

use grain::lineage::{Cut, CutReason, Holding, LayerName, Membership, PartialSession};
use grain::lineage::{Grains, Layer, Union, delta, membership, open_layer_within};
use grain::{CutId, Lineage, Position, SessionId};
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mask(u8);

impl Union for Mask {
    fn union_with(&mut self, other: &Mask) {
        self.0 |= other.0;
    }
}

impl Grains for Mask {
    fn is_subset(&self, other: &Mask) -> bool {
        self.0 & !other.0 == 0
    }
}

struct Site {
    lineage: Lineage,
    layers: Vec<Layer<Mask>>,
    open: Mask,
    direct: Mask,
    missing: Mask,
    sequence: u64,
    partial: Option<(CutId, Mask)>,
    fuzzy_end: Option<CutId>,
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn cut_id(value: &Value) -> CutId {
    CutId::from_bytes(u128::from(number(value)).to_be_bytes())
}

fn mask(value: &Value) -> Mask {
    Mask(number(value) as u8)
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

impl Site {
    fn read(value: &Value) -> Site {
        let ends = list(&value["ends"]);
        let mut lineage = Lineage::new();
        for cut in list(&value["chain"]) {
            let parent = lineage.head().map(|cut| cut.id);
            let end = ends.iter().find(|end| Some(cut_id(&end[0])) == parent);
            let cut = Cut { id: cut_id(cut), parent, unix_ms: 0, reason: CutReason::Cycle };
            lineage.push(cut, end.map(|end| number(&end[1]))).expect("a chain");
        }
        let layer = |value: &Value| Layer {
            name: LayerName::along(list(&value[1]).iter().map(cut_id)).expect("two ends"),
            grains: mask(&value[0]),
        };
        let partial = &value["partial"];
        Site {
            lineage,
            layers: list(&value["layers"]).iter().map(layer).collect(),
            open: mask(&value["open"]),
            direct: mask(&value["direct"]),
            missing: mask(&value["missing"]),
            sequence: number(&value["sequence"]),
            partial: partial
                .is_object()
                .then(|| (cut_id(&partial["cut"]), mask(&partial["remaining"]))),
            fuzzy_end: value["fuzzy_end"].is_u64().then(|| cut_id(&value["fuzzy_end"])),
        }
    }

    fn holding(&self) -> Holding<'_, Mask> {
        Holding {
            lineage: &self.lineage,
            layers: &self.layers,
            open: &self.open,
            direct: &self.direct,
            missing: &self.missing,
            partial: self.partial.as_ref().map(|(cut, remaining)| PartialSession {
                session: SessionId::from_bytes([1; 16]),
                cut: *cut,
                remaining,
            }),
            fuzzy_end: self.fuzzy_end,
        }
    }
}

fn in_past(a: &Site, b: &Site) -> bool {
    let cut = b.lineage.head().expect("a cut").id;
    match membership(Position { cut, sequence: b.sequence }, &a.lineage, a.sequence) {
        Membership::Member => true,
        Membership::UnknownCut | Membership::SequenceBeyond { .. } => false,
        Membership::EndUnknown => open_layer_within(cut, &b.open, &a.lineage, &a.layers),
    }
}

#[test]
fn deltas_and_memberships_are_those_of_the_model() {
    let vectors: Value = serde_json::from_str(include_str!("lineage.json")).expect("JSON");
    let vectors = list(&vectors);
    assert!(vectors.len() > 300, "{} vectors", vectors.len());
    let (mut unknown, mut refused) = (0, 0);
    for (n, vector) in vectors.iter().enumerate() {
        let (a, b) = (Site::read(&vector["a"]), Site::read(&vector["b"]));
        let need = delta(&a.holding(), &b.holding()).ok().map(|delta| u64::from(delta.pull.0));
        assert_eq!(need, vector["need"].as_u64(), "vector {n}: {vector}");
        assert_eq!(Some(in_past(&a, &b)), vector["in_past"].as_bool(), "vector {n}: {vector}");
        unknown += usize::from(need.is_none());
        refused += usize::from(!in_past(&a, &b));
    }
    // The vectors are worth comparing only if they hold enough of either kind.
    assert!(unknown > 50 && refused > 50, "{unknown} unknown, {refused} refused");
}

//! `LABEL.json`: what decodes is written again as a label that decodes to the same.

use media::Label;

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "label",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 64 << 10, per_byte: 64 },
};

const GOLDEN: &[u8] = include_bytes!("../../../../shared/media/tests/golden/v1/medium1/LABEL.json");

fn run(data: &[u8]) {
    let Ok(label) = Label::decode(data) else { return };
    assert!((1..=label.media).contains(&label.medium));
    let again = serde_json::to_vec(&label).expect("a label is JSON");
    assert_eq!(Label::decode(&again).expect("its own text"), label);
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let deep = [vec![b'['; 2000], vec![b']'; 2000]].concat();
    vec![("golden".into(), GOLDEN.to_vec()), ("deep".into(), deep)]
}

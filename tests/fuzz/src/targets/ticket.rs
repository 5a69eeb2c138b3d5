//! Tickets. The first byte chooses: the text of a ticket, or the content of one, which is signed here so
//! that the bounds behind the signature are reached.

use grain::RelationshipId;
use wire::{Ticket, TicketContent};

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "ticket",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 4 << 20, per_byte: 64 },
};

fn run(data: &[u8]) {
    let (mode, rest) = data.split_first().unwrap_or((&0, &[]));
    match mode % 2 {
        0 => {
            if let Ok(ticket) = Ticket::parse(rest) {
                again(&ticket);
            }
        }
        _ => {
            let Ok(mut content) = wire::codec::decode::<TicketContent>(rest, Ticket::MAX_BYTES)
            else {
                return;
            };
            let keys = stage::keys();
            content.primary = keys.identity();
            if let Ok(ticket) = Ticket::sign(content, &keys) {
                again(&ticket);
            }
        }
    }
}

fn again(ticket: &Ticket) {
    let text = ticket.to_text().expect("a ticket has a text");
    if text.len() <= Ticket::MAX_BYTES {
        assert_eq!(Ticket::parse(text.as_bytes()).expect("its own text"), *ticket);
    }
    assert!(ticket.content().geometry.validate().is_ok());
    assert!(ticket.verify_from(&ticket.content().primary).is_ok());
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let keys = stage::keys();
    let content = TicketContent {
        relationship: RelationshipId::from_bytes([2; 16]),
        name: "payroll".into(),
        geometry: stage::geometry(),
        addresses: vec!["a.example:7100".into(), "[::1]:7100".into()],
        primary: keys.identity(),
    };
    let coded = wire::codec::encode(&content).expect("a content");
    let ticket = Ticket::sign(content, &keys).expect("a ticket");
    let text = ticket.to_text().expect("a text").into_bytes();
    vec![
        ("text".into(), [vec![0], text].concat()),
        ("content".into(), [vec![1], coded].concat()),
        ("version".into(), b"\0grainhaul ticket 2\n{}\n".to_vec()),
    ]
}

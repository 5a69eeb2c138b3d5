//! Tickets: round trip, mail programs, every kind of tampering, hostile text.

use grain::{GrainSize, VolumeShape};
use proptest::prelude::*;

use super::*;

fn content(keys: &SiteKeys) -> TicketContent {
    let volumes = vec![
        VolumeShape { alias: "data".into(), bytes: 1 << 40 },
        VolumeShape { alias: "log".into(), bytes: 123_456_789 },
    ];
    TicketContent {
        relationship: RelationshipId::new(1_700_000_000_000, [7; 10]),
        name: "db-1".into(),
        geometry: Geometry { grain: GrainSize::DEFAULT, volumes },
        addresses: vec!["source.example:7410".into(), "[2001:db8::1]:7410".into()],
        primary: keys.identity(),
    }
}

fn sample() -> (SiteKeys, Ticket) {
    let keys = SiteKeys::generate().unwrap();
    let ticket = Ticket::sign(content(&keys), &keys).unwrap();
    (keys, ticket)
}

#[test]
fn it_round_trips_and_survives_other_line_ends() {
    let (keys, ticket) = sample();
    let text = ticket.to_text().unwrap();
    assert!(text.starts_with("grainhaul ticket 1\n{"), "{text}");
    assert_eq!(Ticket::parse(text.as_bytes()).unwrap(), ticket);
    assert_eq!(Ticket::parse(text.replace('\n', "\r\n").as_bytes()).unwrap(), ticket);
    assert!(ticket.verify_from(&keys.identity()).is_ok());
    let other = SiteKeys::generate().unwrap().identity();
    assert!(ticket.verify_from(&other).unwrap_err().to_string().contains("another site"));
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let (_, ticket) = sample();
    let text = ticket.to_text().unwrap().into_bytes();
    let mut found = 0;
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << bit;
            match Ticket::parse(&damaged) {
                // White space and the case of digits carry nothing.
                Ok(parsed) => assert_eq!(parsed, ticket, "byte {at} bit {bit}"),
                Err(_) => found += 1,
            }
        }
        assert!(at + 2 >= text.len() || Ticket::parse(&text[..at]).is_err(), "cut at {at}");
    }
    assert!(found > text.len() * 6, "{found} of {}", text.len() * 8);
}

#[test]
fn each_value_is_covered_by_the_signature() {
    let (keys, ticket) = sample();
    let other = SiteKeys::generate().unwrap();
    type Change = fn(&mut TicketContent);
    let changes: [Change; 5] = [
        |c| c.relationship = RelationshipId::new(0, [0; 10]),
        |c| c.name.push('x'),
        |c| c.geometry.volumes[1].bytes += 1,
        |c| c.addresses[0] = "attacker.example:7410".into(),
        |c| c.addresses.clear(),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut tampered = ticket.clone();
        change(&mut tampered.content);
        let text = tampered.to_text().unwrap();
        let error = Ticket::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Signature { .. }), "change {i}: {error}");
    }
    let mut stolen = ticket;
    stolen.content.primary = other.identity();
    assert!(Ticket::parse(stolen.to_text().unwrap().as_bytes()).is_err());
    assert!(Ticket::sign(content(&keys), &other).is_err());
}

#[test]
fn bounds_are_named() {
    let (keys, ticket) = sample();
    let refused = |change: fn(&mut TicketContent)| {
        let mut content = content(&keys);
        change(&mut content);
        Ticket::sign(content, &keys).unwrap_err().to_string()
    };
    assert!(refused(|c| c.name = "../etc".into()).contains("cannot name"));
    assert!(refused(|c| c.name = "-rf".into()).contains("cannot name"));
    assert!(refused(|c| c.name.clear()).contains("cannot name"));
    assert!(refused(|c| c.geometry.volumes.clear()).contains("1 to 64 volumes"));
    assert!(refused(|c| c.addresses = vec!["h:1".into(); 17]).contains("17 addresses"));
    for address in ["host", "host:", "host:0", "host:99999", "::1:7410", "a b:1", ":1", "[::g]:1"] {
        assert!(check_address(address).is_err(), "{address}");
    }
    assert!(check_address("host-1.example:7410").is_ok());
    let text = ticket.to_text().unwrap();
    let second = text.replace("ticket 1", "ticket 2");
    let error = Ticket::parse(second.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("version \"2\"; this program knows 1"), "{error}");
    let unknown = text.replacen("\"name\"", "\"secret\": 1, \"name\"", 1);
    assert!(Ticket::parse(unknown.as_bytes()).unwrap_err().to_string().contains("unknown field"));
    assert!(matches!(Ticket::parse(&vec![b' '; 70_000]), Err(Error::TooLong { .. })));
    let deep = format!("{FIRST_LINE}\n{}", "[".repeat(60_000));
    assert!(Ticket::parse(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Ticket::parse(&bytes).is_err());
        let mut with_head = format!("{FIRST_LINE}\n").into_bytes();
        with_head.extend(bytes);
        prop_assert!(Ticket::parse(&with_head).is_err());
    }
}

//! The option phase.

use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::negotiation::{Negotiation, Step, Tls};
use crate::protocol::info;

#[test]
fn export_name_answers_size_flags_and_padding() {
    for (flags, padding) in [(1_u32, 124_usize), (3, 0), (0, 124)] {
        with_memory(|mut raw| async move {
            raw.greet(flags).await;
            raw.option(option::EXPORT_NAME, b"first").await;
            let answer = raw.bytes(10 + padding).await;
            assert_eq!(answer[..8], SIZE.to_be_bytes());
            assert_eq!(answer[8..10], 0x0d6d_u16.to_be_bytes());
            assert!(answer[10..].iter().all(|b| *b == 0));
            raw.request(0, 0, 7, 0, 4).await;
            assert_eq!(raw.simple().await, (0, 7));
            assert_eq!(raw.bytes(4).await, [0; 4]);
        });
    }
}

#[test]
fn an_unknown_export_name_unknown_flags_or_a_wrong_magic_close_the_connection() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        raw.option(option::EXPORT_NAME, b"nobody").await;
        raw.closed().await;
    });
    with_memory(|mut raw| async move {
        raw.greet(4).await;
        raw.closed().await;
    });
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        raw.send(b"IHAVEOPX\0\0\0\x03\0\0\0\0").await;
        raw.closed().await;
    });
}

#[test]
fn a_client_without_fixed_newstyle_may_only_name_an_export() {
    with_memory(|mut raw| async move {
        raw.greet(0).await;
        raw.option(option::LIST, &[]).await;
        raw.closed().await;
    });
}

#[test]
fn list_names_all_exports_with_their_texts() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        let replies = raw.ask(option::LIST, &[]).await;
        let expected = [
            (reply::SERVER, named("first", b"a test")),
            (reply::SERVER, named("second", b"a volume in memory")),
            (reply::ACK, Vec::new()),
        ];
        assert_eq!(replies, expected);
        assert_eq!(raw.outcome(option::LIST, b"x").await, reply::ERR_INVALID);
    });
}

#[test]
fn info_gives_what_was_asked_and_go_enters_transmission() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        let asked = [0, 3, 0, 1, 0, 2, 0, 3];
        let replies = raw.ask(option::INFO, &named("", &asked)).await;
        let items: Vec<u16> = replies
            .iter()
            .filter(|(kind, _)| *kind == reply::INFO)
            .map(|(_, data)| u16::from_be_bytes([data[0], data[1]]))
            .collect();
        assert_eq!(items, [info::EXPORT, info::NAME, info::DESCRIPTION, info::BLOCK_SIZE]);
        assert_eq!(replies[1].1[2..], *b"first");
        assert_eq!(replies[2].1[2..], *b"a test");
        assert_eq!(replies[3].1[2..], [0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0x10, 0, 0]);
        let go = raw.ask(option::GO, &named("second", &[0, 0])).await;
        assert_eq!(go[0].1[2..10], 512_u64.to_be_bytes());
        raw.request(0, 0, 1, 0, 512).await;
        assert_eq!(raw.simple().await, (0, 1));
        raw.bytes(512).await;
    });
}

#[test]
fn malformed_options_are_refused_and_the_next_one_is_heard() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        let long_name = [&u32::MAX.to_be_bytes()[..], b"x", &[0, 0]].concat();
        let malformed: [&[u8]; 6] = [
            b"",
            b"\0\0",
            &long_name,
            &named("first", b""),
            &named("first", &[0, 2, 0, 0]),
            &named("first", &[0, 0, 9]),
        ];
        for data in malformed {
            for code in [option::INFO, option::GO] {
                assert_eq!(raw.outcome(code, data).await, reply::ERR_INVALID, "{data:?}");
            }
        }
        let unknown = named("nobody", &[0, 0]);
        assert_eq!(raw.outcome(option::GO, &unknown).await, reply::ERR_UNKNOWN);
        for code in [0, 4, 12, 99, u32::MAX] {
            assert_eq!(raw.outcome(code, b"data").await, reply::ERR_UNSUP);
        }
        assert_eq!(raw.outcome(option::STARTTLS, &[]).await, reply::ERR_POLICY);
        assert_eq!(raw.outcome(option::GO, &named("first", &[0, 0])).await, reply::ACK);
    });
}

#[test]
fn abort_is_acknowledged_and_ends() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        assert_eq!(raw.outcome(option::ABORT, b"why").await, reply::ACK);
        raw.closed().await;
    });
}

#[test]
fn styles_are_agreed_and_extended_headers_take_precedence() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        for code in [option::STRUCTURED_REPLY, option::EXTENDED_HEADERS] {
            assert_eq!(raw.outcome(code, b"x").await, reply::ERR_INVALID);
            assert_eq!(raw.outcome(code, b"").await, reply::ACK);
        }
        let again = raw.outcome(option::STRUCTURED_REPLY, b"").await;
        assert_eq!(again, reply::ERR_EXT_HEADER_REQD);
        raw.option(option::EXPORT_NAME, b"first").await;
        raw.closed().await;
    });
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = named(name, &(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&named(query, &[]));
    }
    data
}

#[test]
fn metadata_contexts_are_listed_and_selected() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        let set = option::SET_META_CONTEXT;
        let base = queries("first", &["base:allocation"]);
        assert_eq!(raw.outcome(set, &base).await, reply::ERR_INVALID, "structured replies first");
        assert_eq!(raw.outcome(option::STRUCTURED_REPLY, &[]).await, reply::ACK);
        let texts = |replies: Vec<(u32, Vec<u8>)>| -> Vec<(u8, String)> {
            let contexts = replies.into_iter().filter(|(kind, _)| *kind == reply::META_CONTEXT);
            let read = |data: Vec<u8>| (data[3], String::from_utf8_lossy(&data[4..]).into_owned());
            contexts.map(|(_, data)| read(data)).collect()
        };
        let (base_name, dirty) = ("base:allocation".to_owned(), "test:dirty".to_owned());
        let list = option::LIST_META_CONTEXT;
        let all = texts(raw.ask(list, &queries("", &[])).await);
        assert_eq!(all, [(0, base_name.clone()), (0, dirty.clone())]);
        let wild = texts(raw.ask(list, &queries("first", &["test:", "x:y", "nocolon"])).await);
        assert_eq!(wild, [(0, dirty.clone())]);
        assert_eq!(texts(raw.ask(set, &queries("first", &[])).await), []);
        assert_eq!(texts(raw.ask(set, &queries("first", &["test:"])).await), []);
        let both = queries("first", &["test:dirty", "base:allocation", "test:dirty"]);
        assert_eq!(texts(raw.ask(set, &both).await), [(0, base_name), (1, dirty)]);
        assert_eq!(raw.outcome(set, &queries("nobody", &[])).await, reply::ERR_UNKNOWN);
        let many = vec!["a:b"; 300];
        assert_eq!(raw.outcome(list, &queries("first", &many)).await, reply::ERR_TOO_BIG);
        let mut cut = both.clone();
        cut.pop();
        assert_eq!(raw.outcome(set, &cut).await, reply::ERR_INVALID);
        assert_eq!(raw.outcome(option::GO, &named("first", &[0, 0])).await, reply::ACK);
        raw.request(0, 7, 5, 0, 4096).await;
        assert_eq!(raw.error_chunk(5).await, 22, "a failed selection selects nothing");
    });
}

#[test]
fn long_option_data_is_refused_and_absurd_lengths_close() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        let long = vec![0; (64 << 10) + 1];
        assert_eq!(raw.outcome(option::INFO, &long).await, reply::ERR_TOO_BIG);
        raw.send(b"IHAVEOPT\0\0\0\x06\xff\xff\xff\xff").await;
        raw.closed().await;
    });
}

#[test]
fn the_number_of_options_is_bounded() {
    let limits = Limits { options: 5, ..Limits::default() };
    with_server(Rc::new(MemoryExport::new(SIZE)), limits, |mut raw, _| async move {
        raw.greet(3).await;
        for _ in 0..5 {
            raw.outcome(99, &[]).await;
        }
        raw.closed().await;
    });
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    for start in [&b""[..], b"\0\0\0\x03", b"\0\0\0\x03IHAVEOPT\0\0\0\x06\0\0\0\x09abc"] {
        with_server(Rc::new(MemoryExport::new(SIZE)), limits, |mut raw, _| async move {
            raw.bytes(18).await;
            raw.send(start).await;
            raw.closed().await;
        });
    }
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before_it() {
    let export: Rc<dyn Export> = Rc::new(MemoryExport::new(SIZE));
    let exports = [("first".to_owned(), export)];
    let mut negotiation = Negotiation::new(&exports, Tls::Required, true, true);
    let kind_of = |out: &[u8]| u32::from_be_bytes(out[12..16].try_into().expect("4 bytes"));
    for code in [3, 4, 6, 7, 8, 9, 10, 11, 99] {
        let mut out = Vec::new();
        assert!(matches!(negotiation.option(code, b"whatever", &mut out), Step::Next));
        assert_eq!(kind_of(&out), reply::ERR_TLS_REQD, "option {code}");
    }
    let mut out = Vec::new();
    assert!(matches!(negotiation.option(option::EXPORT_NAME, b"first", &mut out), Step::Close));
    assert_eq!(out, b"", "EXPORT_NAME cannot be answered with an error");
    assert!(matches!(negotiation.option(option::ABORT, b"", &mut out), Step::Close));
    assert_eq!(kind_of(&out), reply::ACK);
    out.clear();
    assert!(matches!(negotiation.option(option::STARTTLS, b"x", &mut out), Step::Next));
    assert_eq!(kind_of(&out), reply::ERR_INVALID);
    out.clear();
    assert!(matches!(negotiation.option(option::STARTTLS, b"", &mut out), Step::StartTls));
    negotiation.tls_started();
    out.clear();
    assert!(matches!(negotiation.option(option::STARTTLS, b"", &mut out), Step::Next));
    assert_eq!(kind_of(&out), reply::ERR_INVALID);
    out.clear();
    assert!(matches!(negotiation.option(option::LIST, b"", &mut out), Step::Next));
    assert_eq!(kind_of(&out), reply::SERVER);
}

#[test]
fn a_server_that_shuts_down_refuses_options() {
    let limits = Limits { farewell: Duration::from_millis(200), ..Limits::default() };
    with_server(Rc::new(MemoryExport::new(SIZE)), limits, |mut raw, server| async move {
        raw.greet(3).await;
        raw.outcome(option::LIST, &[]).await;
        server.shutdown().await;
        assert_eq!(raw.outcome(option::LIST, &[]).await, reply::ERR_SHUTDOWN);
        assert_eq!(raw.outcome(option::ABORT, &[]).await, reply::ACK);
        raw.closed().await;
    });
}

#[test]
fn unfit_exports_are_named_at_once() {
    let export = || -> Rc<dyn Export> { Rc::new(MemoryExport::new(SIZE)) };
    let make = |names: &[&str]| {
        let exports = names.iter().map(|name| ((*name).to_owned(), export())).collect();
        Server::new(exports, Limits::default(), None).map(drop)
    };
    assert!(make(&["a", "b"]).is_ok());
    for names in [&[""][..], &["a", "a"], &["nul\0"]] {
        let error = make(names).expect_err("unfit").to_string();
        assert!(error.contains("a name has"), "{error}");
    }
    let mut odd = description();
    odd.blocks.minimum = 3;
    let export: Rc<dyn Export> = Rc::new(MemoryExport::with_description(odd));
    let error = Server::new(vec![("odd".into(), export)], Limits::default(), None).map(drop);
    assert!(error.expect_err("unfit").to_string().contains("`odd`"));
}

//! Role code reaches clock, randomness, files, sockets and threads through its context alone.

use super::is_role_code;
use crate::tidy::paths::named;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "outside-world",
    why: "the simulator must own time, chance and failure, else a history does not replay",
    check,
};

/// What is forbidden, as the head of a path. `std::time::Duration` and `tokio::time` are fine.
const FORBIDDEN: [&str; 27] = [
    "std::time::SystemTime",
    "std::time::Instant",
    "std::time::UNIX_EPOCH",
    "std::time::*",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::net",
    "std::os::unix::net",
    "std::process",
    "std::env",
    "tokio::net",
    "tokio::fs",
    "tokio::process",
    "tokio::signal",
    "tokio::task::spawn_blocking",
    "tokio::task::block_in_place",
    "tokio::runtime",
    "getrandom",
    "rand",
    "rustix",
    "libc",
    "uuid::Uuid::new_v4",
    "uuid::Uuid::now_v7",
    "Uuid::new_v4",
    "Uuid::now_v7",
    "aws_lc_rs::rand",
];

/// Data that stands below a forbidden head.
const ALLOWED: [&str; 1] = ["rustix::io::Errno"];

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| is_role_code(tree, &file.path)) {
        for named in named(file) {
            let path = named.path.as_str();
            let is_forbidden = FORBIDDEN.iter().any(|head| {
                path.strip_prefix(head)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            let is_allowed = ALLOWED.iter().any(|head| path.starts_with(head));
            if is_forbidden && !is_allowed {
                let words = format!("`{path}` goes around `disk::Context`");
                found.push(Finding::at(file, named.offset, words));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let text = "//! x\nuse std::{fs, time::{Duration, Instant}};\n\nfn f() {\n    \
            let a = std::thread::spawn(g);\n    let b = SystemTime::now();\n    \
            let c = rand::random();\n    let d = Uuid::new_v4();\n    \
            tokio::task::spawn_blocking(h);\n}\n";
        for krate in ["grain", "journal", "media", "replication", "disk"] {
            let path = format!("shared/{krate}/src/lib.rs");
            let lines: Vec<_> = [2, 2, 5, 6, 7, 8, 9].map(|n| format!("{path}:{n}")).into();
            assert_eq!(found(&RULE, &[(&path, text)]), lines);
        }
    }

    #[test]
    fn a_good_sample_passes() {
        let world = "use std::fs; fn f() { std::thread::park(); }";
        let files = [
            (
                "shared/grain/src/lib.rs",
                "use std::time::Duration; use tokio::time::Instant; use rustix::io::Errno;",
            ),
            ("shared/grain/src/a.rs", "// std::fs\n#[cfg(test)]\nmod tests { use std::fs; }"),
            ("shared/grain/tests/b.rs", world),
            ("shared/wire/src/lib.rs", world),
            ("shared/disk/src/real/file.rs", world),
            ("shared/disk/src/real.rs", world),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}

//! The marker file of the hooks. Nothing is run here: what would be given to the shell is looked at.
//!
//! What is read is written again as the same. A path never leaves its quotes, and a hook that the options
//! refuse does not come from a marker either.

use std::time::Duration;

use site::hooks::{Hook, Hooks, Marker};

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "marker",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 1 << 20, per_byte: 64 },
};

fn run(data: &[u8]) {
    let Ok(marker) = Marker::decode(data) else { return };
    let again = Marker::decode(&marker.encode().expect("it was read")).expect("its own bytes");
    assert_eq!(again, marker);
    assert!((Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&marker.limit()));
    let text = match &marker.thaw {
        Hook::Shell(command) => {
            assert_eq!(marker.command(), *command);
            command.clone()
        }
        Hook::FsFreeze(path) => {
            let command = marker.command();
            let quoted = command.split_once("--unfreeze ").expect("the command").1;
            let (word, rest) = first_word(quoted);
            assert_eq!(word, path.to_string_lossy(), "the path is not one word");
            assert!(rest.starts_with(" 2>&1) && exit 0\n"), "more than a path: {rest}");
            format!("fsfreeze:{}", path.display())
        }
    };
    Hooks::new(&text, Some(&text), Duration::ZERO).expect("the options refuse this hook");
}

/// The first word of a line in single quotes, as a shell takes it, and what follows.
fn first_word(line: &str) -> (String, &str) {
    let mut word = String::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let (inside, after) = quoted.split_once('\'').expect("an open quote");
            word.push_str(inside);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(r"\'") {
            word.push('\'');
            rest = after;
        } else {
            return (word, rest);
        }
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let seed = |name: &str, thaw: &str, timeout: &str| {
        let text = format!(r#"{{"thaw":{thaw},"timeout_ms":{timeout},"boot_id":"00ff"}}"#);
        (name.to_owned(), text.into_bytes())
    };
    vec![
        seed("path", r#"{"fs-freeze":"/srv/data"}"#, "30000"),
        seed("quotes", r#"{"fs-freeze":"/srv/it's; 'here' \\ \n"}"#, "0"),
        seed("shell", r#"{"shell":"systemctl start db"}"#, "18446744073709551615"),
        seed("relative", r#"{"fs-freeze":"--help"}"#, "1"),
        seed("empty", r#"{"shell":""}"#, "1"),
    ]
}

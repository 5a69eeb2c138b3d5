//! Libraries do not panic, except where an invariant is written down.

use crate::tidy::source::Source;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "panics",
    why: "a library that panics takes every volume of the relationship down with it",
    check,
};

/// Never in a library.
const NEVER: [&str; 3] = [".unwrap()", ".unwrap_err()", "unwrap_unchecked("];

/// Only under a comment `// invariant: ...` that says why it cannot happen.
const WITH_REASON: [&str; 5] = [".expect(", ".expect_err(", "panic!", "unreachable!", "assert!"];

/// How far above its statement's line the reason may begin.
const REACH_LINES: usize = 10;

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let libraries = tree.rust().filter(|file| {
        file.path.starts_with("shared/")
            && file.path.contains("/src/")
            && !tree.is_test_file(&file.path)
    });
    for file in libraries {
        for word in NEVER {
            for offset in file.find_word(word).filter(|&at| !file.is_test_at(at)) {
                found.push(Finding::at(file, offset, format!("`{word}` in a library")));
            }
        }
        for word in WITH_REASON {
            for offset in file.find_word(word).filter(|&at| !file.is_test_at(at)) {
                if !has_reason(file, offset) {
                    let words = format!(
                        "`{word}` without a comment `// invariant: ...` before the statement"
                    );
                    found.push(Finding::at(file, offset, words));
                }
            }
        }
    }
    found
}

/// Whether the reason stands on the line itself, or in the comment right above its statement.
fn has_reason(file: &Source, offset: usize) -> bool {
    const MARK: &str = "// invariant:";
    let line = file.line_of(offset) - 1;
    let text: Vec<&str> = file.text.lines().collect();
    let code: Vec<&str> = file.code.lines().collect();
    // An assertion in a constant fails the build, never the program.
    if text[line].contains(MARK) || code[line].trim_start().starts_with("const _") {
        return true;
    }
    for above in (0..line).rev().take(REACH_LINES) {
        if text[above].contains(MARK) {
            return true;
        }
        let code_above = code[above].trim();
        let is_comment = code_above.is_empty() && !text[above].trim().is_empty();
        let ends_statement = code_above.is_empty() || code_above.ends_with([';', '{', '}']);
        if !is_comment && ends_statement {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let text = "fn f() {\n    // invariant: for the first only\n    a.expect(\"x\");\n    \
            b.expect(\"x\");\n    // invariant: no excuse\n    c.unwrap();\n    panic!(\"x\");\n}\n\
            fn g() {\n    assert!(x);\n}\n";
        let path = "shared/wire/src/a.rs";
        assert_eq!(
            found(&RULE, &[(path, text)]),
            [6, 4, 7, 10].map(|line| format!("{path}:{line}"))
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let text = "const _: () = assert!(A < B);\nfn f() {\n    // invariant: the length was\n    // checked above\n    let a = b\n        \
            .c()\n        .expect(\"x\");\n    d.unwrap_or(1); debug_assert!(e);\n    \
            g.expect(\"x\"); // invariant: said here\n}\n\
            #[cfg(test)]\nmod tests { fn h() { i.unwrap(); } }\n";
        let files = [
            ("shared/wire/src/a.rs", text),
            ("shared/wire/src/a/tests.rs", "x.unwrap()"),
            ("shared/wire/tests/b.rs", "panic!()"),
            ("primary-agent/src/main.rs", "x.expect(\"y\")"),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}

//! The paths that a file names: `std::fs::read` written out, and what `use` trees stand for.

use super::source::{Source, is_ident};

/// A path such as `std::time::Instant` and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Byte offset of its last part.
    pub offset: usize,
    /// The parts joined by `::`; a glob ends in `*`.
    pub path: String,
}

/// All paths of at least two parts outside tests; groups of `use` are written out.
pub fn named(file: &Source) -> Vec<Named> {
    let tokens = tokens(&file.code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_word && (at == 0 || tokens[at - 1].text != "::") {
            at = read_path(&tokens, at, "", &mut found);
        } else {
            at += 1;
        }
    }
    found.retain(|named| named.path.contains("::") && !file.is_test_at(named.offset));
    found
}

struct Token<'a> {
    offset: usize,
    text: &'a str,
    is_word: bool,
}

/// Words, `::`, and single other characters.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut chars = code.char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut end = offset + c.len_utf8();
        let is_word = is_ident(c);
        if is_word {
            while let Some((_, next)) = chars.next_if(|&(_, next)| is_ident(next)) {
                end += next.len_utf8();
            }
        } else if c == ':' && chars.next_if(|&(_, next)| next == ':').is_some() {
            end += 1;
        }
        found.push(Token { offset, text: &code[offset..end], is_word });
    }
    found
}

/// Reads one path that starts at the word `at`, and the group behind it; returns what comes next.
fn read_path(tokens: &[Token<'_>], at: usize, head: &str, found: &mut Vec<Named>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut path = if head.is_empty() {
        tokens[at].text.to_owned()
    } else {
        format!("{head}::{}", tokens[at].text)
    };
    let mut last = at;
    let mut next = at + 1;
    while text(next) == "::" {
        match tokens.get(next + 1) {
            Some(word) if word.is_word || word.text == "*" => {
                path = format!("{path}::{}", word.text);
                last = next + 1;
                next += 2;
            }
            Some(open) if open.text == "{" => return read_group(tokens, next + 2, &path, found),
            _ => break,
        }
    }
    found.push(Named { offset: tokens[last].offset, path });
    next
}

fn read_group(tokens: &[Token<'_>], from: usize, head: &str, found: &mut Vec<Named>) -> usize {
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        if token.text == "}" {
            return at + 1;
        }
        if token.text == "as" {
            at += 2;
        } else if token.is_word {
            at = read_path(tokens, at, head, found);
        } else {
            at += 1;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        named(&Source::new("a.rs", text)).into_iter().map(|named| named.path).collect()
    }

    #[test]
    fn paths_and_groups_are_written_out() {
        assert_eq!(
            all("use std::{fs, io::{self, Read}, time::{Duration as D, Instant}};"),
            [
                "std::fs",
                "std::io::self",
                "std::io::Read",
                "std::time::Duration",
                "std::time::Instant"
            ]
        );
        assert_eq!(all("let a = std::fs::read(b); c.d();"), ["std::fs::read"]);
        assert_eq!(all("use std::time::*; x::<u8>()"), ["std::time::*"]);
    }

    #[test]
    fn tests_and_text_are_left_out() {
        assert!(all("// std::fs\n#[cfg(test)]\nmod t { use std::fs; }").is_empty());
    }
}

//! One file of the tree as the tidy rules see it: its text, and for Rust the same text with
//! comments and literals blanked out and the lines of tests marked.
//!
//! It is a scanner, not a parser: it knows comments, strings, characters and braces, which is what
//! the rules need, and it never fails. Blanking keeps every byte position and every line, so that
//! what a rule finds in the code can be named by its line in the file.

use std::ops::Range;

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the top of the tree, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The text with comments and literals blanked; for files that are not Rust, the text itself.
    pub code: String,
    /// Byte ranges of items under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Takes a file in.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank(text) } else { text.to_owned() };
        let tests = if path.ends_with(".rs") { test_items(&code) } else { Vec::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code, tests }
    }

    /// Whether this is a Rust file.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the byte at `offset` belongs to an item under `#[cfg(test)]`.
    pub fn is_test_at(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// The line, counted from 1, of the byte at `offset`.
    pub fn line_of(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|&&b| b == b'\n').count() + 1
    }

    /// Where `word` stands in the code as a whole word (its ends do not touch a letter, a digit or
    /// `_` if they are such themselves).
    pub fn find_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        find_word(&self.code, word)
    }
}

/// Where `word` stands in `text` as a whole word.
pub fn find_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let touches = |a: Option<char>, b: Option<char>| match (a, b) {
            (Some(a), Some(b)) => is_ident(a) && is_ident(b),
            _ => false,
        };
        !touches(before, word.chars().next()) && !touches(word.chars().next_back(), after)
    })
}

/// A character of an identifier.
pub fn is_ident(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Blanks comments and the content of literals with spaces, byte for byte; line ends stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        match end {
            Some(end) => {
                let hidden = &bytes[at..end];
                out.extend(hidden.iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
                at = end;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    // invariant: whole comments and literals were replaced by ASCII, the rest was copied.
    String::from_utf8(out).expect("blanking keeps UTF-8")
}

/// If a comment or a literal starts at `at`, where it ends.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_ident = at > 0 && is_ident(char::from(bytes[at - 1]));
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        return Some(at + len);
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    if rest.starts_with(b"\"") {
        return Some(string_end(bytes, at + 1));
    }
    if !after_ident {
        for prefix in [&b"br"[..], b"cr", b"r"] {
            if let Some(end) = raw_string_end(bytes, at, prefix.len(), rest.starts_with(prefix)) {
                return Some(end);
            }
        }
    }
    if rest.starts_with(b"'") {
        return character_end(bytes, at);
    }
    None
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The end of a string whose content starts at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], at: usize, prefix: usize, matches: bool) -> Option<usize> {
    if !matches {
        return None;
    }
    let hashes = bytes[at + prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = at + prefix + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let found = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(bytes.len(), |found| open + 1 + found + close.len()))
}

/// The end of a character literal; `None` when the quote opens a lifetime or a label.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|&b| b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let text = std::str::from_utf8(&bytes[at + 1..bytes.len().min(at + 5)]);
    let valid = match &text {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&bytes[at + 1..at + 1 + e.valid_up_to()]).ok()?,
    };
    let first = valid.chars().next()?;
    let close = at + 1 + first.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

/// The items that stand under `#[cfg(test)]`, from the attribute to the closing brace or semicolon.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let from = at + attribute.len();
        let mut depth = 0_usize;
        let mut end = code.len();
        for (offset, c) in code[from..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = from + offset + 1;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = from + offset + 1;
                    break;
                }
                _ => {}
            }
        }
        found.push(at..end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_positions_kept() {
        let text = concat!(
            "let a = \"unwrap() \\\" {\"; // unwrap()\n",
            "let b = 'x'; let c = '\\''; let d: &'static str = r#\"un\"wrap\"#;\n",
            "/* outer /* inner */ unwrap() */ fn f<'a>(x: &'a u8) {}\n",
            "let e = 'ä'; let bytes = b\"unwrap\"; let raw = br\"\\\"; stay();\n",
        );
        let code = Source::new("a.rs", text).code;
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("unwrap"), "{code}");
        assert!(!code.contains("wrap"), "{code}");
        assert!(code.contains("let d: &'static str ="), "{code}");
        assert!(code.contains("fn f<'a>(x: &'a u8) {}"), "{code}");
        assert!(code.contains("; stay();"), "{code}");
        assert_eq!(code.matches('\n').count(), 4);
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        for text in ["\"abc", "r##\"abc\"#", "/* /* */", "'\\", "'", "b'"] {
            assert_eq!(Source::new("a.rs", text).code.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { } }\nfn c() {}\n";
        let source = Source::new("a.rs", text);
        let at = |needle: &str| text.find(needle).unwrap();
        assert!(!source.is_test_at(at("fn a")));
        assert!(source.is_test_at(at("fn b")));
        assert!(!source.is_test_at(at("fn c")));
        assert_eq!(source.line_of(at("fn c")), 4);
    }

    #[test]
    fn a_word_is_whole() {
        let hits: Vec<_> = find_word("rand::x brand::y std::fs std::fsx", "rand::").collect();
        assert_eq!(hits, [0]);
        assert_eq!(find_word("std::fs std::fsx", "std::fs").count(), 1);
    }
}

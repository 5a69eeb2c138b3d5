//! Links inside the documents lead somewhere.

use crate::tidy::modules::join;
use crate::tidy::source::Source;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule =
    Rule { name: "links", why: "a dead link is a promise to the reader that is not kept", check };

/// One link that is not to another host.
#[derive(Debug)]
pub struct Link {
    /// Byte offset in the file.
    pub offset: usize,
    /// The path from the top of the tree; `None` for an anchor in the same file.
    pub path: Option<String>,
    /// What stands after `#`.
    pub anchor: Option<String>,
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for link in targets(file) {
            let path = link.path.as_deref().unwrap_or(&file.path);
            if !tree.has(path) {
                found.push(Finding::at(file, link.offset, format!("{path} is not there")));
                continue;
            }
            let Some(anchor) = link.anchor else { continue };
            let target = tree.files.iter().find(|target| target.path == path);
            let is_there = target.is_none_or(|target| {
                !path.ends_with(".md") || anchors(&target.text).any(|a| a == anchor)
            });
            if !is_there {
                found.push(Finding::at(
                    file,
                    link.offset,
                    format!("{path} has no heading #{anchor}"),
                ));
            }
        }
    }
    found
}

/// The relative links of a Markdown file, those in code left out.
pub fn targets(file: &Source) -> Vec<Link> {
    let folder = file.path.rfind('/').map_or("", |at| &file.path[..=at]);
    let mut found = Vec::new();
    for (start, line) in prose_lines(&file.text) {
        let mut at = 0;
        while let Some(open) = line[at..].find("](") {
            let from = at + open + 2;
            let len = line[from..].find([')', ' ']).unwrap_or(line.len() - from);
            let target = &line[from..from + len];
            at = from + len;
            let is_outside = target.contains("://") || target.starts_with("mailto:");
            if is_outside || is_in_code(line, from) {
                continue;
            }
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor.to_owned())),
                None => (target, None),
            };
            let path = (!path.is_empty()).then(|| join(folder, path));
            found.push(Link { offset: start + from, path, anchor });
        }
    }
    found
}

/// Lines outside fenced code, each with its offset.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    let mut fenced = false;
    text.split_inclusive('\n').filter_map(move |line| {
        let at = start;
        start += line.len();
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((at, line))
    })
}

/// Whether an odd number of backticks stands before `at`.
fn is_in_code(line: &str, at: usize) -> bool {
    line[..at].matches('`').count() % 2 == 1
}

/// The anchors that the headings of a Markdown text make: lower case, spaces become dashes, other
/// signs fall away.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    prose_lines(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let text = "# Top\n[a](b.md)\n[c](../d.md)\n[e](#nowhere)\n[f](g.md#gone)\n";
        let files = [("docs/a.md", text), ("docs/g.md", "# Here\n")];
        assert_eq!(
            found(&RULE, &files),
            ["docs/a.md:2", "docs/a.md:3", "docs/a.md:4", "docs/a.md:5"]
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let text = "# The `top` of it\n[a](b.md \"title\") [c](../README.md) [d](#the-top-of-it)\n\
            [e](https://example.org/x) `[f](gone.md)` [g](formats) [h](b.md#two-words)\n\
            ```\n[i](gone.md)\n```\n";
        let files = [
            ("docs/a.md", text),
            ("docs/b.md", "## Two words\n"),
            ("README.md", ""),
            ("docs/formats/x.md", ""),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}

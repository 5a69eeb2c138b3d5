//! `mod name;` declarations of a file, and where each may find its file.

use super::source::{Source, is_ident};

/// One declaration of a module that stands in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where it is declared.
    pub offset: usize,
    /// The paths that the compiler would look at.
    pub candidates: Vec<String>,
}

/// The declarations in `file`, those inside inline modules included.
pub fn declared(file: &Source) -> Vec<Module> {
    let mut found = Vec::new();
    for offset in file.find_word("mod") {
        let rest = file.code[offset + 3..].trim_start();
        let name: String = rest.chars().take_while(|&c| is_ident(c)).collect();
        if name.is_empty() || !rest[name.len()..].trim_start().starts_with(';') {
            continue;
        }
        let candidates = match path_attribute(file, offset) {
            Some(path) => vec![join(folder_of(&file.path), &path)],
            None => {
                let mut folder = children_folder(&file.path);
                for inline in inline_parents(&file.code, offset) {
                    folder = format!("{folder}{inline}/");
                }
                vec![format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")]
            }
        };
        found.push(Module { offset, candidates });
    }
    found
}

/// The value of `#[path = "..."]` right before a declaration.
fn path_attribute(file: &Source, offset: usize) -> Option<String> {
    let head = &file.code[..offset];
    let start = head.rfind([';', '}', '{']).map_or(0, |at| at + 1);
    let at = start + head[start..].find("#[path")?;
    let text = &file.text[at..offset];
    let value = text.split('"').nth(1)?;
    Some(value.to_owned())
}

/// The names of the inline modules that enclose `offset`, outermost first.
fn inline_parents(code: &str, offset: usize) -> Vec<String> {
    let mut open: Vec<Option<String>> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut start = None;
    for (at, c) in code[..offset].char_indices() {
        if is_ident(c) {
            start.get_or_insert(at);
            continue;
        }
        if let Some(from) = start.take() {
            words.push(&code[from..at]);
        }
        match c {
            '{' => {
                let name = match words.as_slice() {
                    [.., "mod", name] => Some((*name).to_owned()),
                    _ => None,
                };
                open.push(name);
                words.clear();
            }
            '}' => {
                open.pop();
                words.clear();
            }
            ';' => words.clear(),
            _ => {}
        }
    }
    open.into_iter().flatten().collect()
}

fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..=at])
}

/// The folder in which the children of a file stand.
fn children_folder(path: &str) -> String {
    let folder = folder_of(path);
    let name = &path[folder.len()..];
    let parent = folder.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let is_root = matches!(name, "lib.rs" | "main.rs" | "mod.rs" | "build.rs")
        || matches!(parent, "bin" | "examples" | "benches")
        || (parent == "tests" && !folder.contains("/src/"));
    if is_root { folder.to_owned() } else { format!("{}/", path.trim_end_matches(".rs")) }
}

/// Joins a folder (ending in `/` or empty) and a relative path, resolving `.` and `..`.
pub fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // Above the top there is nothing that a rule would find.
                if parts.pop().is_none() {
                    parts.push("..");
                }
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(path: &str, text: &str) -> Vec<String> {
        declared(&Source::new(path, text)).into_iter().flat_map(|m| m.candidates).collect()
    }

    #[test]
    fn declarations_lead_to_files() {
        assert_eq!(candidates("a/src/lib.rs", "mod x;"), ["a/src/x.rs", "a/src/x/mod.rs"]);
        assert_eq!(candidates("a/src/y.rs", "pub mod x;"), ["a/src/y/x.rs", "a/src/y/x/mod.rs"]);
        assert_eq!(candidates("a/tests/t.rs", "mod x;"), ["a/tests/x.rs", "a/tests/x/mod.rs"]);
        assert_eq!(
            candidates("a/src/y.rs", "mod i { mod x; }"),
            ["a/src/y/i/x.rs", "a/src/y/i/x/mod.rs"]
        );
        assert_eq!(candidates("a/src/y.rs", "#[path = \"../z.rs\"]\nmod x;"), ["a/z.rs"]);
    }

    #[test]
    fn inline_modules_and_comments_are_no_files() {
        assert!(candidates("a/src/lib.rs", "mod x {}\n// mod y;\nlet s = \"mod z;\";").is_empty());
    }
}

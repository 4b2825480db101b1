//! Rules for what is not code: which pages exist, how long they are, and what no file may name.
//!
//! A clone must run on any machine, so no file names a folder of the machine it was written on, nor a package mirror
//! that only that machine can see. Decisions are recorded one a page with their context and consequence, and the
//! architecture stays short enough to be read.

use super::Finding;
use super::walk::TextFile;

const PAGES: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "deny.toml"];
const ARCHITECTURE_LINES_MAX: usize = 300;
const DECISION_HEADINGS: [&str; 3] = ["Context", "Decision", "Consequence"];

/// First parts of paths that exist on one machine only. Joined with slashes below, so that this file passes itself.
const MACHINE_FOLDERS: [&str; 3] = ["root", "work", "Users"];
const CRATE_INDEX: &str = "registry+https://github.com/rust-lang/crates.io-index";
const NPM_REGISTRY: &str = "https://registry.npmjs.org/";

/// Rules for any text file.
pub(crate) fn check_any(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(folder) = machine_path(line) {
            findings.push(Finding::new(path, index + 1, format!("names a folder of one machine: {folder}")));
        }
        if names_a_mirror(path, line) {
            findings.push(Finding::new(
                path,
                index + 1,
                "names a package registry other than the public one",
            ));
        }
    }
    findings
}

fn machine_path(line: &str) -> Option<String> {
    let folders = MACHINE_FOLDERS.iter().map(|folder| format!("/{folder}/"));
    folders.chain([format!("/{}/", "home")]).find(|folder| {
        line.match_indices(folder.as_str()).any(|(at, _)| {
            let starts_a_path =
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~})>*".contains(c));
            let name_len =
                line[at + folder.len()..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
            // One level below `home` may be a page of a site; two levels are somebody's folder.
            let goes_deeper = name_len.is_some_and(|len| line[at + folder.len() + len..].starts_with('/'));
            starts_a_path && (goes_deeper || !folder.contains("home"))
        })
    })
}

fn names_a_mirror(path: &str, line: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name {
        "package-lock.json" => line
            .split_once("\"resolved\": \"")
            .is_some_and(|(_, url)| url.contains("://") && !url.starts_with(NPM_REGISTRY)),
        "Cargo.lock" => {
            line.strip_prefix("source = \"").is_some_and(|source| source.trim_end_matches('"') != CRATE_INDEX)
        }
        ".npmrc" => line.contains("registry") && !line.contains(NPM_REGISTRY),
        "config.toml" if path.contains(".cargo/") => {
            line.contains("registry") || line.contains("replace-with")
        }
        _ => false,
    }
}

/// Rules about the set of pages.
pub(crate) fn check_set(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in PAGES {
        if !files.iter().any(|file| file.path == page) {
            findings.push(Finding::new(page, 1, "is missing"));
        }
    }
    for file in files {
        if file.path == "ARCHITECTURE.md" {
            findings.extend(architecture_length(file));
        }
        if file.path.starts_with("docs/adr/")
            && file.path.ends_with(".md")
            && !file.path.ends_with("/README.md")
        {
            findings.extend(decision_headings(file));
        }
    }
    findings
}

fn architecture_length(file: &TextFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > ARCHITECTURE_LINES_MAX).then(|| {
        let message = format!("{lines} lines; at most {ARCHITECTURE_LINES_MAX}, or nobody reads it");
        Finding::new(&file.path, 1, message)
    })
}

fn decision_headings(file: &TextFile) -> Vec<Finding> {
    let has = |word: &str| file.text.lines().any(|line| line.starts_with('#') && line.contains(word));
    let missing = DECISION_HEADINGS.iter().filter(|word| !has(word));
    missing
        .map(|word| Finding::new(&file.path, 1, format!("a decision without the heading {word}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let findings = check_any(path, text);
        assert_eq!(findings.len(), expected.len(), "{text}: {findings:?}");
        for (finding, (line, word)) in findings.iter().zip(expected) {
            assert!(finding.line == *line && finding.message.contains(word), "{finding}");
        }
    }

    #[test]
    fn no_file_names_a_folder_of_one_machine() {
        check("a.md", concat!("fine\nsee /ro", "ot/notes"), &[(2, "one machine")]);
        check("a.toml", concat!("path = \"/ho", "me/ann/x\""), &[(1, "one machine")]);
        check("a.md", "GET /home/ and /home/sale are pages; target/out/x is relative", &[]);
    }

    #[test]
    fn no_file_names_a_private_registry() {
        let mirror = "  \"resolved\": \"https://npm.mirror.example/x.tgz\",";
        check("examples/shop/package-lock.json", mirror, &[(1, "registry")]);
        check("package-lock.json", "\"resolved\": \"https://registry.npmjs.org/x.tgz\",", &[]);
        check("Cargo.lock", "source = \"registry+https://crates.mirror.example\"", &[(1, "registry")]);
        check("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"", &[]);
        check("examples/shop/.npmrc", "registry=https://npm.mirror.example/", &[(1, "registry")]);
    }

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn the_pages_exist() {
        let findings = check_set(&[file("README.md", "")]);
        assert_eq!(findings.len(), PAGES.len() - 1, "{findings:?}");
    }

    #[test]
    fn the_architecture_is_short() {
        let long = file("ARCHITECTURE.md", &"line\n".repeat(301));
        assert!(check_set(&[long]).iter().any(|finding| finding.message.starts_with("301 lines")));
    }

    #[test]
    fn a_decision_has_its_headings() {
        let record = file("docs/adr/0001-x.md", "# X\n## Context\n## Decision\ntext\n");
        let findings = check_set(&[record]);
        assert!(
            findings.iter().any(|finding| finding.message.ends_with("heading Consequence")),
            "{findings:?}"
        );
    }
}

//! Rules between crates: the map, who may depend on whom, how many packages.
//!
//! `tenfold → tiers → leaves`, and nothing sideways: a tier that needs another tier's knowledge gets a handle from the
//! binary. The groups are listed here, so a new crate has to be put in its place before it compiles past the tests. The
//! packages are counted with `cargo tree`, from what is already downloaded where possible.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Finding;
use super::walk::TextFile;

const TIERS: [&str; 9] =
    ["edge", "pooler", "loadgen", "jobs", "realtime", "ingest", "archive", "autoscaler", "gslb"];
const LEAVES: [&str; 9] = ["service", "state", "gate", "http1", "cache", "balance", "pgwire", "sql", "log"];
/// Never part of what users run.
const DEV: [&str; 2] = ["testkit", "xtask"];
const BINARY: &str = "tenfold";
/// The one dependency among leaves.
const LEAF_TO_LEAF: (&str, &str) = ("cache", "state");
/// Names that say nothing, so everything ends up in them.
const NAMES_FORBIDDEN: [&str; 7] = ["common", "utils", "util", "helpers", "types", "core", "shared"];
const CRATES_MAX: usize = 24;
/// In the tree of normal and build dependencies for Linux, our own crates included.
const PACKAGES_MAX: usize = 260;

/// Rules that need only the files.
pub(crate) fn check(files: &[TextFile], architecture: &str) -> Result<Vec<Finding>> {
    let manifests: Vec<(&str, &TextFile)> =
        files.iter().filter_map(|file| Some((crate_of_manifest(&file.path)?, file))).collect();
    let names: BTreeSet<&str> = manifests.iter().map(|&(name, _)| name).collect();
    let mut findings = map_differences(&names, &crate_map(architecture));
    if names.len() > CRATES_MAX {
        findings.push(Finding::new("Cargo.toml", 1, format!("{} crates; at most {CRATES_MAX}", names.len())));
    }
    for (name, manifest) in manifests {
        findings.extend(name_of_crate(name, &manifest.path));
        findings.extend(directions(name, manifest)?);
    }
    Ok(findings)
}

fn crate_of_manifest(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml").filter(|name| !name.contains('/'))
}

/// The crates ARCHITECTURE.md names, with their lines: list items "- `crates/NAME/`" and the rows "| `NAME` |" of a
/// table whose first column is headed by the word crate.
fn crate_map(architecture: &str) -> BTreeMap<&str, usize> {
    let mut map = BTreeMap::new();
    let mut in_crate_table = false;
    let mut in_table = false;
    for (index, line) in architecture.lines().enumerate() {
        let is_row = line.starts_with('|');
        if is_row && !in_table {
            let heading = line.split('|').nth(1).unwrap_or_default();
            in_crate_table = heading.to_lowercase().contains("crate");
        }
        in_table = is_row;
        let item = line.trim_start().strip_prefix("- `crates/");
        let row = line.strip_prefix("| `").filter(|_| in_crate_table);
        let Some((name, _)) = item.or(row).and_then(|rest| rest.split_once('`')) else { continue };
        let name = name.trim_start_matches("crates/").trim_end_matches('/');
        // A path below a crate is about a file, not an entry of the map.
        if !name.contains('/') {
            map.insert(name, index + 1);
        }
    }
    map
}

fn map_differences(names: &BTreeSet<&str>, map: &BTreeMap<&str, usize>) -> Vec<Finding> {
    let unnamed = names.iter().filter(|name| !map.contains_key(*name));
    let unnamed =
        unnamed.map(|name| Finding::new("ARCHITECTURE.md", 1, format!("does not name crates/{name}/")));
    let absent = map.iter().filter(|(name, _)| !names.contains(*name));
    let absent = absent.map(|(name, line)| {
        Finding::new("ARCHITECTURE.md", *line, format!("names crates/{name}/, which is not there"))
    });
    unnamed.chain(absent).collect()
}

fn name_of_crate(name: &str, path: &str) -> Option<Finding> {
    if NAMES_FORBIDDEN.contains(&name) {
        return Some(Finding::new(path, 1, format!("a crate named {name} says nothing")));
    }
    let placed = name == BINARY || TIERS.contains(&name) || LEAVES.contains(&name) || DEV.contains(&name);
    (!placed)
        .then(|| Finding::new(path, 1, format!("say in xtask's tidy whether {name} is a tier or a leaf")))
}

/// Dependencies that point the wrong way.
fn directions(name: &str, manifest: &TextFile) -> Result<Vec<Finding>> {
    let parsed: toml::Table =
        manifest.text.parse().with_context(|| format!("{} is not TOML", manifest.path))?;
    let mut findings = Vec::new();
    for table in ["dependencies", "build-dependencies"] {
        let Some(dependencies) = parsed.get(table).and_then(toml::Value::as_table) else { continue };
        for key in dependencies.keys() {
            let dependency = key.strip_prefix("tenfold-").unwrap_or(key);
            let ours = key.starts_with("tenfold-") || key == BINARY || key == "xtask";
            if ours && let Some(why) = refused(name, dependency) {
                let line = manifest
                    .text
                    .lines()
                    .position(|line| line.starts_with(key.as_str()))
                    .map_or(1, |at| at + 1);
                findings.push(Finding::new(
                    &manifest.path,
                    line,
                    format!("{name} depends on {dependency}: {why}"),
                ));
            }
        }
    }
    Ok(findings)
}

fn refused(from: &str, to: &str) -> Option<&'static str> {
    let is_tier = |name| TIERS.contains(&name);
    let is_leaf = |name| LEAVES.contains(&name);
    match () {
        () if to == BINARY || to == "xtask" => Some("nothing depends on a program"),
        () if DEV.contains(&from) => None,
        () if DEV.contains(&to) => Some("it is for tests: [dev-dependencies]"),
        () if is_tier(from) && is_tier(to) => {
            Some("a tier knows no other tier; the binary hands handles over")
        }
        () if is_leaf(from) && is_tier(to) => Some("a leaf knows no tier"),
        () if is_leaf(from) && is_leaf(to) && (from, to) != LEAF_TO_LEAF => Some("a leaf stands alone"),
        () => None,
    }
}

/// Rules about the packages that cargo resolves.
pub(crate) fn check_tree(root: &Path) -> Result<Vec<Finding>> {
    let packages = packages(root)?;
    let deny = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let mut findings = duplicates(&packages, &deny);
    findings.extend(budget(packages.len()));
    Ok(findings)
}

/// Name and version of each package in the normal and build tree for Linux.
fn packages(root: &Path) -> Result<BTreeSet<(String, String)>> {
    let tree = |network: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["tree", "--workspace", "-e", "normal,build", "--prefix", "none", "--locked"]);
        command.args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"]);
        command.args(network).current_dir(root).output().context("cannot run cargo tree")
    };
    let mut output = tree(&["--offline"])?;
    if !output.status.success() {
        output = tree(&[])?;
    }
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(parse_tree(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_tree(output: &str) -> BTreeSet<(String, String)> {
    let mut packages = BTreeSet::new();
    for line in output.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            packages.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
        }
    }
    packages
}

fn budget(count: usize) -> Option<Finding> {
    (count > PACKAGES_MAX)
        .then(|| Finding::new("Cargo.lock", 1, format!("{count} packages; the budget is {PACKAGES_MAX}")))
}

fn duplicates(packages: &BTreeSet<(String, String)>, deny: &str) -> Vec<Finding> {
    let mut majors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in packages {
        majors.entry(name).or_default().insert(major(version));
    }
    let doubled = majors.into_iter().filter(|(name, majors)| majors.len() > 1 && !is_explained(name, deny));
    doubled
        .map(|(name, majors)| {
            let versions = majors.into_iter().collect::<Vec<_>>().join(" and ");
            Finding::new("deny.toml", 1, format!("{name} {versions}: two majors, and no line here says why"))
        })
        .collect()
}

/// What cargo holds incompatible: `1.2.3` → `1`, `0.9.1` → `0.9`.
fn major(version: &str) -> &str {
    let dots = if version.starts_with("0.") { 2 } else { 1 };
    version.match_indices('.').nth(dots - 1).map_or(version, |(at, _)| &version[..at])
}

/// A line of deny.toml that names the crate in quotes and gives a reason, there or in a comment.
fn is_explained(name: &str, deny: &str) -> bool {
    let quoted = [format!("\"{name}\""), format!("\"{name}@"), format!("\"{name}:")];
    deny.lines().any(|line| {
        quoted.iter().any(|quoted| line.contains(quoted)) && (line.contains("reason") || line.contains('#'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, dependencies: &str) -> TextFile {
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}");
        TextFile { path: format!("crates/{name}/Cargo.toml"), text }
    }

    /// One crate with these dependencies; `word` is in the only finding, or there is none.
    fn check_one(name: &str, dependencies: &str, word: Option<&str>) {
        let map = format!("- `crates/{name}/`: x");
        let findings = check(&[manifest(name, dependencies)], &map).expect("valid TOML");
        assert_eq!(findings.len(), usize::from(word.is_some()), "{findings:?}");
        assert!(word.is_none_or(|word| findings[0].message.contains(word)), "{findings:?}");
    }

    #[test]
    fn tiers_do_not_know_each_other() {
        check_one("edge", "tenfold-cache.workspace = true\nbytes = \"1\"\n", None);
        check_one("edge", "tenfold-loadgen.workspace = true\n", Some("a tier knows no other tier"));
        check_one("loadgen", "tenfold-edge = { path = \"../edge\" }\n", Some("a tier knows no other tier"));
    }

    #[test]
    fn leaves_stand_alone() {
        check_one("http1", "tenfold-service.workspace = true\n", Some("a leaf stands alone"));
        check_one("cache", "tenfold-state.workspace = true\n", None);
        check_one("balance", "tenfold-edge.workspace = true\n", Some("a leaf knows no tier"));
    }

    #[test]
    fn test_crates_and_programs_are_not_libraries() {
        check_one("edge", "tenfold-testkit.workspace = true\n", Some("dev-dependencies"));
        check_one("edge", "[dev-dependencies]\ntenfold-testkit.workspace = true\n", None);
        check_one("xtask", "tenfold.workspace = true\n", Some("program"));
    }

    #[test]
    fn names_say_something() {
        check_one("utils", "", Some("says nothing"));
        check_one("zebra", "", Some("tier or a leaf"));
    }

    #[test]
    fn the_map_is_the_territory() {
        let table = "| crate | what |\n|---|---|\n| `edge` | x |\n| `cache/` | y |\n\n| limit | n |\n|---|---|\n| `zz` | 1 |\n";
        assert_eq!(crate_map(table).into_keys().collect::<Vec<_>>(), ["cache", "edge"]);
        let files = [manifest("edge", ""), manifest("gate", "")];
        let messages: Vec<String> = check(&files, table)
            .expect("valid TOML")
            .into_iter()
            .map(|finding| finding.to_string())
            .collect();
        let expected = [
            "ARCHITECTURE.md:1: does not name crates/gate/",
            "ARCHITECTURE.md:4: names crates/cache/, which is not there",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn two_majors_need_a_reason() {
        let packages = parse_tree(
            "syn v1.0.1\nsyn v2.0.1 (proc-macro)\nrand v0.9.2\nrand v0.9.3\nlog v0.4.1\nlog v0.5.0 (*)\n",
        );
        let check = |deny: &str, names: &[&str]| {
            let found: Vec<_> =
                duplicates(&packages, deny).into_iter().map(|finding| finding.message).collect();
            assert_eq!(found.len(), names.len(), "{found:?}");
            assert!(found.iter().zip(names).all(|(message, name)| message.starts_with(name)), "{found:?}");
        };
        check("", &["log 0.4 and 0.5", "syn 1 and 2"]);
        check("skip = [{ crate = \"syn@1\", reason = \"x\" }]", &["log"]);
        check("skip = [\n\"syn@1\", # old macro\n\"log@0.4\",\n]", &["log"]);
    }

    #[test]
    fn the_budget_holds() {
        assert_eq!(budget(PACKAGES_MAX), None);
        assert!(budget(PACKAGES_MAX + 1).is_some_and(|finding| finding.message.contains("261")));
    }
}

//! `tenfold config explain route.cache.ttl`: one key, for a person.
//!
//! A path leads through the table of keys as it would through a file; names of clusters and numbers of routes may stand
//! in it (`cluster.api.balance`, `route[2].to`) or be left out.

use super::keys::{Key, Kind, ROOT};
use super::{suggest, walk};

/// What is known about a path, or which name in it is unknown.
pub fn explain(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok(listing("tenfold.toml", ROOT));
    }
    let found = find(path)?;
    Ok(describe(path, found))
}

fn find(path: &str) -> Result<&'static Key, String> {
    let mut keys = ROOT;
    let mut found: Option<&'static Key> = None;
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        if let Some(key) = keys.iter().find(|key| key.name == name) {
            keys = children(&key.kind);
            found = Some(key);
            continue;
        }
        // The name of a cluster, where names are free.
        if matches!(found.map(|key| &key.kind), Some(Kind::Named(_))) {
            continue;
        }
        return Err(unknown(name, keys));
    }
    found.ok_or_else(|| unknown(path, ROOT))
}

fn unknown(name: &str, keys: &[Key]) -> String {
    match suggest::nearest(name, keys.iter().map(|key| key.name)) {
        Some(near) => format!("unknown key \"{name}\"; did you mean \"{near}\"?"),
        None => {
            let known: Vec<_> = keys.iter().map(|key| key.name).collect();
            format!("unknown key \"{name}\"; known here: {}", known.join(", "))
        }
    }
}

/// The keys of a table of this kind; empty if it is none.
#[must_use]
pub fn children(kind: &'static Kind) -> &'static [Key] {
    match kind {
        Kind::Table(keys) | Kind::Named(keys) | Kind::Each(keys) => keys,
        Kind::OneOf(kinds) => kinds.iter().map(children).find(|keys| !keys.is_empty()).unwrap_or(&[]),
        Kind::List(kind) | Kind::OneOrMany(kind) => children(kind),
        _ => &[],
    }
}

fn describe(path: &str, key: &'static Key) -> String {
    if matches!(key.kind, Kind::Later) {
        return format!("{path}\n  Not in this release yet: {}.\n", key.doc);
    }
    let mut out = format!("{path}\n  {}\n\n  takes    {}\n", key.doc, walk::expected(&key.kind));
    out += &match key.default {
        Some("{}") | None if !key.required => "  default  none\n".to_owned(),
        Some(default) => format!("  default  {default}\n"),
        None => "  default  none; it must be there\n".to_owned(),
    };
    out += &format!("  example  {} = {}\n", key.name, key.example);
    let keys = children(&key.kind);
    if !keys.is_empty() {
        out += &format!("\n{}", listing(path, keys));
    }
    out
}

fn listing(title: &str, keys: &[Key]) -> String {
    let width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
    let line = |key: &Key| {
        let later = if matches!(key.kind, Kind::Later) { "(a later release) " } else { "" };
        format!("  {:width$}  {later}{}\n", key.name, key.doc)
    };
    format!("Keys of {title}:\n{}", keys.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_key() {
        for path in [
            "route.cache.ttl",
            "route[3].cache.ttl",
            "cluster.api.balance",
            "cluster.balance",
            "edge.listen",
            "cluster.api.nodes.weight",
            "database.shop.user.app.size",
        ] {
            assert!(explain(path).is_ok_and(|text| text.starts_with(path)), "{path}");
        }
        let text = explain("route.cache.ttl").expect("known");
        assert!(text.contains("example  ttl = \"30s\""), "{text}");
        assert!(explain("rate").expect("known").contains("Not in this release"));
        assert!(explain("").expect("everything").contains("cluster"));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        assert_eq!(explain("route.cahce"), Err("unknown key \"cahce\"; did you mean \"cache\"?".into()));
        assert_eq!(explain("edge.listen.foo").map_err(|e| e.contains("foo")), Err(true));
    }
}

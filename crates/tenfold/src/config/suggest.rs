//! The nearest known name: what someone probably meant to write.
//!
//! Optimal string alignment distance (a swap of neighbours is one slip, as fingers do), case ignored; a name is offered
//! only if it is at most a third of its length away, since a wild guess is worse than a list. Names are short and few;
//! input longer than [`WORD_CHARS_MAX`] is not compared at all.

/// No key or name is nearly as long as this; it bounds the table of distances.
const WORD_CHARS_MAX: usize = 64;

/// The candidate nearest to `word`, if one is near enough.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let scored = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (distance, candidate) = scored.min_by_key(|&(distance, _)| distance)?;
    let longest = word.chars().count().max(candidate.chars().count());
    (distance <= longest.div_ceil(3)).then_some(candidate)
}

fn distance(a: &str, b: &str) -> usize {
    let lower = |word: &str| word.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (a, b) = (lower(a), lower(b));
    if a.len() > WORD_CHARS_MAX || b.len() > WORD_CHARS_MAX {
        return usize::MAX;
    }
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            rows[i][j] = if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<&str>) {
        let known = ["balance", "nodes", "health", "timeout", "least_connections", "to"];
        assert_eq!(nearest(word, known), expected, "{word}");
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        check("balanc", Some("balance"));
        check("Nodes", Some("nodes"));
        check("helath", Some("health"));
        check("time_out", Some("timeout"));
        check("least_connection", Some("least_connections"));
        check("ot", Some("to"));
        check("frobnicate", None);
        check("", None);
        check(&"x".repeat(10_000), None);
    }
}

//! `tenfold purge`: takes one URL, all that carries a tag, or everything out of the running process's cache.

use super::{complain, print, print_json};
use crate::cli::{Exit, Purge};
use crate::client::Client;

/// Purges, and says what was done.
#[must_use]
pub fn purge(purge: &Purge) -> Exit {
    if purge.prefix.is_some() {
        complain("error: purging by prefix is not in this release yet; use --url, --tag or --all");
        return Exit::Usage;
    }
    let order = match (&purge.url, &purge.tag) {
        (Some(url), _) => serde_json::json!({ "url": url, "soft": purge.soft }),
        (None, Some(tag)) => serde_json::json!({ "tag": tag, "soft": purge.soft }),
        (None, None) => serde_json::json!({ "all": true, "soft": purge.soft }),
    };
    match Client::new(&purge.running).post("/api/v1/purge", &order) {
        Ok(answer) if answer.is_fine() && purge.running.json => print_json(&answer.body),
        Ok(answer) if answer.is_fine() => {
            let what = purge.url.as_deref().or(purge.tag.as_deref()).unwrap_or("everything");
            let how = if purge.soft { "marked stale" } else { "purged" };
            print(&format!("{what}: {how}"))
        }
        Ok(answer) => {
            complain(&format!("error: {}", answer.detail()));
            if answer.status == 400 || answer.status == 422 { Exit::Usage } else { Exit::Failed }
        }
        Err(message) => {
            complain(&format!("error: {message}"));
            Exit::Failed
        }
    }
}

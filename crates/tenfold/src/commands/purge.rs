//! `tenfold purge`: takes one URL, all that carries a tag, all below a path, or everything out of the running process's cache.

use super::{complain, print, print_json};
use crate::cli::{Exit, Purge};
use crate::client::Client;

/// Purges, and says what was done.
#[must_use]
pub fn purge(purge: &Purge) -> Exit {
    let soft = purge.soft;
    let order = match (&purge.url, &purge.tag, &purge.prefix) {
        (Some(url), ..) => serde_json::json!({ "url": url, "soft": soft }),
        (None, Some(tag), _) => serde_json::json!({ "tag": tag, "soft": soft }),
        (None, None, Some(prefix)) => serde_json::json!({ "prefix": prefix, "soft": soft }),
        (None, None, None) => serde_json::json!({ "all": true, "soft": soft }),
    };
    match Client::new(&purge.running).post("/api/v1/purge", &order) {
        Ok(answer) if answer.is_fine() && purge.running.json => print_json(&answer.body),
        Ok(answer) if answer.is_fine() => {
            let named = [&purge.url, &purge.tag, &purge.prefix].into_iter().flatten().next();
            let what = named.map_or("everything", String::as_str);
            let how = if purge.soft { "marked stale" } else { "purged" };
            if answer.body["spread"] == false {
                complain(
                    "warning: Redis cannot be reached, so the other edges hear of it only when it is back",
                );
            }
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

//! Whether the Redis that edges share can be reached, as `check` asks it.

use std::path::Path;

use crate::config::Loaded;
use crate::config::diagnostic::Diagnostic;
use crate::live::folder_of;
use crate::sharing;

/// A warning if it can't: edges work without it. An error if it is not known whom to believe.
pub(super) fn unreachable(loaded: &Loaded, file: &Path) -> Option<Diagnostic> {
    let shared = loaded.settings.shared.as_ref()?;
    let span_of = |key: &str| loaded.tree.span_of(&format!("redis.{}.{key}", shared.name)).unwrap_or(0..0);
    let config = match sharing::server(shared, folder_of(file)) {
        Ok(config) => config,
        Err(why) => {
            return Some(Diagnostic::error(span_of("ca"), why, "its certificates vouch for the server"));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let probed = runtime.map_err(tenfold_state::Error::from).and_then(|runtime| {
        let probed = runtime.block_on(tenfold_state::probe(&config));
        // Nobody waits for a name server.
        runtime.shutdown_background();
        probed
    });
    let why = probed.err()?;
    let message = format!("redis \"{}\" cannot be reached: {why}", shared.name);
    Some(Diagnostic::warning(
        span_of("url"),
        message,
        "each edge works by itself, and purges don't reach the others",
    ))
}

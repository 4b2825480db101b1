//! Whether the Redis that edges share can be reached, as `check` asks it.

use crate::config::Loaded;
use crate::config::diagnostic::Diagnostic;

/// A warning if it can't: edges work without it.
pub(super) fn unreachable(loaded: &Loaded) -> Option<Diagnostic> {
    let shared = loaded.settings.shared.as_ref()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let probed = runtime.map_err(tenfold_state::Error::from).and_then(|runtime| {
        let probed = runtime.block_on(tenfold_state::probe(&shared.redis));
        // Nobody waits for a name server.
        runtime.shutdown_background();
        probed
    });
    let why = probed.err()?;
    let span = loaded.tree.span_of(&format!("redis.{}.url", shared.name)).unwrap_or(0..0);
    let message = format!("redis \"{}\" cannot be reached: {why}", shared.name);
    Some(Diagnostic::warning(span, message, "each edge works by itself, and purges don't reach the others"))
}

//! Which core is whose: what is measured has core 0 to itself, everything else keeps off it.
//!
//! The kernel hands a process's cores down to its threads and children, so keeping this process off is enough; what is
//! measured is started through `taskset`, which says otherwise.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The core of what is measured, as `taskset` names it.
pub(crate) const SERVER: &str = "0";

/// This thread, the threads it starts from now on, and all that these start, unless told otherwise, keep off
/// [`SERVER`]. Says `false`, and changes nothing, where there is no other core.
pub(crate) fn keep_off_the_servers() -> Result<bool> {
    let own = Pid::from_raw(0);
    let mut cores = sched_getaffinity(own).context("asking which cores are ours")?;
    cores.unset(0).context("core 0")?;
    if !(0..CpuSet::count()).any(|core| cores.is_set(core).unwrap_or(false)) {
        return Ok(false);
    }
    sched_setaffinity(own, &cores).context("keeping off core 0")?;
    Ok(true)
}

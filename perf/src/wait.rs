//! Waiting for states, never for seconds.
//!
//! A lab step that needs something to be so asks for it here, with a limit that only matters when
//! it never comes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks. Short beside a handshake over loopback, long beside a look at `/proc`.
const POLL_PERIOD: Duration = Duration::from_millis(5);

/// Looks until `probe` answers with a value.
///
/// # Errors
/// Names `what` when `limit` has passed.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain for: {what}", limit.as_secs_f64());
        }
        thread::sleep(POLL_PERIOD);
    }
}

/// Looks until `condition` holds.
///
/// # Errors
/// Names `what` when `limit` has passed.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, limit, || condition().then_some(()))
}

//! Times each operation of a step while a profile is being recorded.
//! Otherwise it costs one atomic read an operation.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static WANTED: AtomicBool = AtomicBool::new(false);
static ENTRIES: Mutex<BTreeMap<String, Entry>> = Mutex::new(BTreeMap::new());

/// Running totals of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry {
    /// Number of runs.
    pub calls: u64,
    /// Time of all runs.
    pub time: Duration,
    /// Floating-point operations of its products, over all runs.
    pub flops: u64,
    /// Bytes of its operands that it reads and writes, each counted once a run, over all runs.
    pub bytes: u64,
}

/// Starts or ends a profile. Either discards what was recorded before.
pub fn record(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
    entries().clear();
}

/// Recorded totals of each operation, by name.
pub fn report() -> Vec<(String, Entry)> {
    entries().iter().map(|(name, entry)| (name.clone(), *entry)).collect()
}

fn entries() -> std::sync::MutexGuard<'static, BTreeMap<String, Entry>> {
    // A panic elsewhere leaves totals that are still valid.
    ENTRIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs an operation, and times it if a profile is being recorded. `name` is called only then.
pub(crate) fn timed<R>(
    name: impl FnOnce() -> String,
    flops: u64,
    bytes: usize,
    run: impl FnOnce() -> R,
) -> R {
    if !WANTED.load(Ordering::Relaxed) {
        return run();
    }
    let start = Instant::now();
    let result = run();
    let time = start.elapsed();
    let mut entries = entries();
    let entry = entries.entry(name()).or_default();
    entry.calls += 1;
    entry.time += time;
    entry.flops += flops;
    entry.bytes += bytes as u64;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_while_wanted() {
        let run = || timed(|| "profile test".to_owned(), 3, 5, || 7);
        assert_eq!(run(), 7);
        record(true);
        run();
        run();
        let found = report().into_iter().find(|(name, _)| name == "profile test").unwrap().1;
        assert_eq!((found.calls, found.flops, found.bytes), (2, 6, 10));
        record(false);
        assert!(report().iter().all(|(name, _)| name != "profile test"));
    }
}

//! An allocator for programs that train: a step's large buffers serve the next step. Asking the system for
//! fresh pages, which it has to clear, costs more than the arithmetic on small images.

pub use mimalloc::MiMalloc as Allocator;

/// Keeps freed memory instead of returning it to the system after a moment: the process stays as large as it has been at
/// its largest.
///
/// Only the sole thread of a process can change this, so call it first thing. Returns whether it was changed: `false` if
/// there is another thread, or on systems other than Linux, where the number of threads is not known.
pub fn keep_freed_memory() -> bool {
    // mimalloc's `mi_option_purge_delay`, for which the bindings have no name; -1 means never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    if threads() != Some(1) {
        return false;
    }
    // SAFETY: the option exists in every version that the bindings build. mimalloc reads and writes options without
    // synchronization; no other thread exists that could do so, and none can start while this one is here.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
    true
}

/// Number of threads of this process, where the system tells it.
fn threads() -> Option<usize> {
    let tasks = if cfg!(target_os = "linux") { "/proc/self/task" } else { return None };
    Some(std::fs::read_dir(tasks).ok()?.count())
}

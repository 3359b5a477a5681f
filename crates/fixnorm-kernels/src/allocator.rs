//! An allocator for programs that train: a step's large buffers serve the next step. Asking the system for
//! fresh pages, which it has to clear, costs more than the arithmetic on small pictures.

pub use mimalloc::MiMalloc as Allocator;

/// Keeps freed memory instead of handing it back to the system after a moment: the process stays as
/// large as it has been at its largest. To be called first thing.
pub fn keep_freed_memory() {
    // mimalloc's `mi_option_purge_delay`, for which the bindings have no name; -1 means never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the option exists in every version that the bindings build, and setting it touches an
    // atomic number only.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}

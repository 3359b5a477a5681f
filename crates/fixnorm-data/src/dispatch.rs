//! Plain loops compiled for the machine's vector instructions.
//! Not here: the loops.

/// Runs `work` compiled for the best instruction set that the machine has and we build for. What it calls
/// is compiled so too only where that is inlined. Results do not depend on the set: the compiler neither
/// fuses nor reorders arithmetic.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

//! Buffers that kernels fill, and how work is split so that results do not depend on threads.

use crate::real::Real;

/// A buffer of `len` numbers for a kernel that writes all of them: zeroing first would cost a pass
/// over memory.
pub(crate) fn unfilled<T: Real>(len: usize) -> Vec<T> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity was just reserved, every bit pattern is a valid number, and each caller
    // writes every element before anything reads it.
    #[allow(clippy::uninit_vec)]
    unsafe {
        buffer.set_len(len);
    }
    buffer
}

/// `units` of work in `count` parts of `per` units, the last one possibly smaller. It follows from
/// the sizes alone, so partial sums are the same whatever the number of threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    pub(crate) per: usize,
}

impl Split {
    /// At most this many parts: enough to balance the cores of a large machine.
    const MOST: usize = 64;

    pub(crate) fn new(units: usize) -> Self {
        Self { per: units.div_ceil(Self::MOST).max(1) }
    }

    /// Parts that each sum into `len` numbers of their own, from `read` numbers in all.
    pub(crate) fn with_sums(units: usize, len: usize, read: usize) -> Self {
        // 16 MiB of partial sums at most, and no more of them than numbers to sum where that leaves
        // enough parts; but never less than two.
        let fit = (4 << 20) / len.max(1);
        let pays = (read / len.max(1)).max(16);
        Self { per: units.div_ceil(fit.min(pays).clamp(2, Self::MOST)).max(1) }
    }
}

//! Buffers that kernels fill, and how work is split so that results do not depend on threads.

use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::real::Real;
use crate::scratch::line_start;

/// The memory of a result, which tasks write in parallel.
///
/// Each task gets an [`Output`], which sets a piece to zero just before the task writes it, while the piece is in the
/// task's cache. Zeroing the whole result first would cost a pass over memory.
pub(crate) struct Buffer<T> {
    slots: Box<[MaybeUninit<T>]>,
    /// Elements of outputs that have ended, so that all of theirs are initialized.
    written: AtomicUsize,
}

impl<T: Real> Buffer<T> {
    pub(crate) fn new(len: usize) -> Self {
        Self { slots: Box::new_uninit_slice(len), written: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The first element that starts a cache line.
    pub(crate) fn line_start(&self) -> usize {
        line_start(&self.slots)
    }

    /// The buffer in `count` outputs of `len` elements, the last one possibly shorter. All are empty if the buffer is.
    ///
    /// # Panics
    /// If they do not cover the buffer.
    pub(crate) fn parts(&mut self, len: usize, count: usize) -> Vec<Output<'_, T>> {
        let whole = self.slots.len();
        assert!(len.checked_mul(count).is_none_or(|all| all >= whole), "{count} parts of {len}");
        self.parts_from(0, len, count)
    }

    /// `count` outputs of `len` elements from `start` on. What is before and behind them is set to zero.
    pub(crate) fn parts_from(
        &mut self,
        start: usize,
        len: usize,
        count: usize,
    ) -> Vec<Output<'_, T>> {
        *self.written.get_mut() = 0;
        let mut whole = Output { rest: &mut self.slots, len: 0, written: &self.written };
        whole.len = whole.rest.len();
        drop(whole.split(start));
        (0..count).map(|_| whole.split(len.min(whole.rest.len()))).collect()
    }

    /// The result.
    ///
    /// # Panics
    /// If an output of it has not ended.
    pub(crate) fn into_vec(self) -> Vec<T> {
        assert_eq!(self.written.into_inner(), self.slots.len(), "a result is written whole");
        // SAFETY: the outputs since the last split share no element, and each has initialized all of its own
        // before it added their number. All of the buffer's elements are counted.
        unsafe { self.slots.assume_init() }.into_vec()
    }
}

/// The part of a result that one task writes, piece by piece from its start. What the task leaves out is zero.
pub(crate) struct Output<'a, T: Real> {
    rest: &'a mut [MaybeUninit<T>],
    /// All of its elements, those of pieces given out included.
    len: usize,
    written: &'a AtomicUsize,
}

impl<'a, T: Real> Output<'a, T> {
    /// Number of elements that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` elements, all zero.
    #[inline(always)]
    pub(crate) fn next(&mut self, len: usize) -> &'a mut [T] {
        zeroed(self.take(len))
    }

    /// Writes the next elements, which are not set to zero before.
    #[inline(always)]
    pub(crate) fn push<const W: usize>(&mut self, values: [T; W]) {
        let slots: &mut [MaybeUninit<T>; W] = self.take(W).try_into().expect("as many as taken");
        for i in 0..W {
            slots[i].write(values[i]);
        }
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> &'a mut [MaybeUninit<T>] {
        // Before the rest is taken apart: after a panic all of it must still be there, to be set to zero.
        assert!(len <= self.rest.len(), "{len} elements of {} that are left", self.rest.len());
        let (next, rest) = mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        next
    }

    /// The next `len` elements as an output of their own.
    #[inline(always)]
    pub(crate) fn split(&mut self, len: usize) -> Self {
        let rest = self.take(len);
        self.len -= len;
        Self { rest, len, written: self.written }
    }
}

impl<T: Real> Drop for Output<'_, T> {
    fn drop(&mut self) {
        zeroed(mem::take(&mut self.rest));
        self.written.fetch_add(self.len, Ordering::Relaxed);
    }
}

#[inline(always)]
fn zeroed<T: Real>(slots: &mut [MaybeUninit<T>]) -> &mut [T] {
    for slot in &mut *slots {
        slot.write(T::default());
    }
    // SAFETY: every slot was just written.
    unsafe { slots.assume_init_mut() }
}

/// `count` pieces of `len`, the last one possibly shorter; empty ones if there is nothing to split.
pub(crate) fn parts_of<T>(whole: &mut [T], len: usize, count: usize) -> Vec<&mut [T]> {
    match len {
        0 => (0..count).map(|_| Default::default()).collect(),
        len => whole.chunks_mut(len).collect(),
    }
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

    /// Parts that each sum into `len` values of their own, from `read` values in all.
    pub(crate) fn with_sums(units: usize, len: usize, read: usize) -> Self {
        // 16 MiB of partial sums at most, and no more of them than values to sum if that leaves enough parts; but
        // never less than two.
        let fit = (4 << 20) / len.max(1);
        let pays = (read / len.max(1)).max(8);
        Self { per: units.div_ceil(fit.min(pays).clamp(2, Self::MOST)).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_leaves_out_is_zero() {
        let mut buffer = Buffer::<f32>::new(10);
        for (part, mut output) in buffer.parts(4, 3).into_iter().enumerate() {
            assert_eq!(output.len(), [4, 4, 2][part]);
            let piece = output.next(2);
            assert_eq!(piece, [0.0; 2]);
            piece.fill(1.0);
        }
        assert_eq!(buffer.into_vec(), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn what_is_pushed_comes_first() {
        let mut buffer = Buffer::<f32>::new(6);
        for mut output in buffer.parts(3, 2) {
            output.push([1.0, 2.0]);
        }
        assert_eq!(buffer.into_vec(), [1.0, 2.0, 0.0, 1.0, 2.0, 0.0]);
    }

    #[test]
    fn what_no_part_covers_is_zero() {
        let mut buffer = Buffer::<f32>::new(6);
        buffer.parts_from(1, 2, 2).iter_mut().for_each(|output| output.next(2).fill(1.0));
        assert_eq!(buffer.into_vec(), [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert!(Buffer::<f32>::new(0).into_vec().is_empty());
    }

    #[test]
    #[should_panic(expected = "written whole")]
    fn a_part_that_was_leaked_is_noticed() {
        let mut buffer = Buffer::<f32>::new(6);
        for output in buffer.parts(3, 2) {
            mem::forget(output);
        }
        buffer.into_vec();
    }

    #[test]
    fn a_piece_that_is_too_long_leaves_the_rest_to_be_cleared() {
        let mut buffer = Buffer::<f32>::new(3);
        let mut outputs = buffer.parts(3, 1);
        let piece = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            outputs[0].next(4);
        }));
        assert!(piece.is_err());
        drop(outputs);
        assert_eq!(buffer.into_vec(), [0.0; 3]);
    }
}

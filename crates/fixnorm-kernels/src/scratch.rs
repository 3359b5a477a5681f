//! Memory that a thread keeps between kernels, so that working buffers stay in its cache and are not allocated again for
//! every kernel.

use std::ops::{Deref, DerefMut};

use crate::real::Real;

/// Bytes of a cache line, and of the longest vector: one that lies across two lines costs two loads.
pub(crate) const LINE: usize = 64;

/// Index of the first element that starts a cache line, or 0 if the buffer is too short to have one.
pub(crate) fn line_start<T>(buffer: &[T]) -> usize {
    let start = buffer.as_ptr().align_offset(LINE);
    if start < buffer.len() { start } else { 0 }
}

/// A buffer lent by the thread's pool, at the start of a cache line. Its content is unspecified, but
/// initialized.
pub(crate) struct Scratch<T: Real> {
    buffer: Vec<T>,
    start: usize,
}

impl<T: Real> Scratch<T> {
    pub(crate) fn new(len: usize) -> Self {
        let mut buffer = T::pool().with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.resize(buffer.len().max(len + LINE / T::BYTES), T::default());
        let start = line_start(&buffer);
        Self { buffer, start }
    }

    pub(crate) fn zeroed(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch[..len].fill(T::default());
        scratch
    }
}

impl<T: Real> Drop for Scratch<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending has no pool any more, and needs none.
        let _ = T::pool().try_with(|pool| pool.borrow_mut().push(buffer));
    }
}

impl<T: Real> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[self.start..]
    }
}

impl<T: Real> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..]
    }
}

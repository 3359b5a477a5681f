//! Memory that a thread keeps between kernels, so that working buffers stay warm in its cache and
//! are not asked of the system again and again.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use crate::real::Real;

thread_local! {
    static POOL: RefCell<HashMap<TypeId, Vec<Box<dyn Any>>>> = RefCell::default();
}

/// A buffer lent by the thread's pool. Its content is unspecified, but initialized.
pub(crate) struct Scratch<T: Real> {
    buffer: Vec<T>,
}

impl<T: Real> Scratch<T> {
    pub(crate) fn new(len: usize) -> Self {
        let lent = POOL.with_borrow_mut(|pool| pool.get_mut(&TypeId::of::<T>())?.pop());
        let mut buffer =
            lent.and_then(|lent| lent.downcast::<Vec<T>>().ok()).map_or_else(Vec::new, |b| *b);
        buffer.resize(len.max(buffer.len()), T::default());
        Self { buffer }
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
        let _ = POOL.try_with(|pool| {
            pool.borrow_mut().entry(TypeId::of::<T>()).or_default().push(Box::new(buffer));
        });
    }
}

impl<T: Real> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer
    }
}

impl<T: Real> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer
    }
}

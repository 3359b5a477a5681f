//! The two formats in which activations are stored. All arithmetic is in `f32`.

use std::any::{Any, TypeId};

pub use half::bf16;

use crate::isa::{Isa, Level};
pub(crate) use sealed::Format;

mod sealed {
    use std::cell::RefCell;
    use std::thread::LocalKey;

    use super::bf16;

    /// Formats of stored values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Format {
        F32,
        Bf16,
    }

    /// Buffers that a thread keeps.
    pub(super) type Pool<T> = RefCell<Vec<Vec<T>>>;

    /// Keeps [`Real`](super::Real) to the types whose format the kernels know: they read memory by it.
    pub trait Sealed: Sized + 'static {
        const FORMAT: Format;

        /// The thread's buffers of this type, for `scratch`.
        fn pool() -> &'static LocalKey<Pool<Self>>;
    }

    thread_local! {
        static F32: Pool<f32> = const { RefCell::new(Vec::new()) };
        static BF16: Pool<bf16> = const { RefCell::new(Vec::new()) };
    }

    impl Sealed for f32 {
        const FORMAT: Format = Format::F32;

        fn pool() -> &'static LocalKey<Pool<Self>> {
            &F32
        }
    }

    impl Sealed for bf16 {
        const FORMAT: Format = Format::Bf16;

        fn pool() -> &'static LocalKey<Pool<Self>> {
            &BF16
        }
    }
}

/// A stored value: `f32` or [`bf16`]. Kernels rely on it that there is no other type, so it cannot be implemented
/// elsewhere:
///
/// ```compile_fail
/// #[derive(Clone, Copy, Debug, Default, PartialEq)]
/// struct Other(f32);
/// impl fixnorm_kernels::Real for Other {
///     fn to_f32(self) -> f32 {
///         self.0
///     }
///     fn from_f32(value: f32) -> Self {
///         Self(value)
///     }
/// }
/// ```
pub trait Real:
    sealed::Sealed + Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static
{
    /// Bytes of one value.
    const BYTES: usize = size_of::<Self>();

    /// Returns the value as `f32`, which is exact.
    fn to_f32(self) -> f32;

    /// Returns the nearest value of this format, ties to even; NaN stays NaN.
    fn from_f32(value: f32) -> Self;

    /// Returns whether products of operands in this format are faster than those of `f32`.
    fn products_pay(isa: Isa) -> bool {
        Self::FORMAT == Format::Bf16 && isa.level() >= Level::Avx512Bf16
    }

    /// Returns `x` itself if it is of this format.
    #[inline(always)]
    fn same<T: Real>(x: &[T]) -> Option<&[Self]> {
        (TypeId::of::<T>() == TypeId::of::<Self>()).then(|| {
            // SAFETY: both types are the same one.
            unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
        })
    }
}
/// `value` as one of type `B`, which is its type: for functions that are not generic below a generic one.
///
/// # Panics
/// If it is not.
pub(crate) fn same_type<A: 'static, B: 'static>(value: A) -> B {
    let mut value = Some(value);
    let value = (&mut value as &mut dyn Any).downcast_mut::<Option<B>>();
    value.and_then(Option::take).expect("both types are the same one")
}

impl Real for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // Not `bf16::from_f32`: this form has no branch and becomes vector instructions.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
        bf16::from_bits((bits >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bf16_rounds_as_the_half_crate(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Real>::from_f32(value), bf16::from_f32(value));
            prop_assert_eq!(ours.is_nan(), value.is_nan());
            if !value.is_nan() {
                prop_assert_eq!(ours.to_bits(), theirs.to_bits());
                prop_assert_eq!(Real::to_f32(ours), theirs.to_f32());
            }
        }
    }
}

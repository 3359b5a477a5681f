//! The inner loops of a product, chosen by number format and instruction set.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::operands::Operands;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::isa::Isa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::isa::Level;
use crate::real::{Format, Real, bf16};

/// `C (+)= L · R`.
///
/// # Safety
/// The operands' pointers are good for the sizes named. For `bf16`, rows of `L` and `C` are padded to
/// [`ROWS`](super::ROWS) and `k` is a positive multiple of 16 pairs.
pub(super) unsafe fn product<T: Real>(isa: Isa, o: Operands<T>) {
    match T::FORMAT {
        // SAFETY: the caller's; `T` is `f32`.
        Format::F32 => unsafe { product_f32(isa, o.cast()) },
        // SAFETY: the caller's; `T` is `bf16`.
        Format::Bf16 => unsafe { product_bf16(isa, o.cast()) },
    }
}

/// # Safety
/// As [`product`].
unsafe fn product_f32(isa: Isa, o: Operands<f32>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the sizes are the caller's; `isa` exists, so this processor has the set.
    unsafe {
        match isa.level() {
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx => return avx512::product_f32(o),
            Level::Avx2 => return avx2::product_f32(o),
            Level::Scalar | Level::Neon => {}
        }
    }
    #[cfg(target_arch = "aarch64")]
    if isa.level() == Level::Neon {
        // SAFETY: the sizes are the caller's; `isa` exists, so this processor has NEON.
        return unsafe { neon::product_f32(o) };
    }
    let _ = isa;
    // SAFETY: the caller's.
    unsafe { scalar::product_f32(o) }
}

/// # Safety
/// As [`product`].
unsafe fn product_bf16(isa: Isa, o: Operands<bf16>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the sizes are the caller's; `isa` exists, so this processor has the set.
    unsafe {
        match isa.level() {
            Level::Amx => return amx::product_bf16(o),
            Level::Avx512Bf16 => return avx512::product_bf16(o),
            Level::Avx512 | Level::Avx2 | Level::Neon | Level::Scalar => {}
        }
    }
    let _ = isa;
    // SAFETY: the caller's.
    unsafe { scalar::product_bf16(o) }
}

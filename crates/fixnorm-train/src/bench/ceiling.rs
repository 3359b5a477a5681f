//! The peak speed of this machine's matrix products and memory copies, to compare operations with.

use std::time::{Duration, Instant};

use fixnorm_kernels::gemm::{PackedB, Rows, RowsMut, multiply};
use fixnorm_kernels::{Isa, Real};
use rayon::prelude::*;
use serde::Serialize;

/// This machine's peak speed, all threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceiling {
    /// Speed of products of cached matrices in the measured precision.
    pub gflops: f64,
    /// Speed of a copy of memory, read and written bytes together.
    pub gbytes: f64,
}

impl Ceiling {
    /// Measures what products in the cache and copies of memory reach, all threads at once: products in `T`,
    /// or in `f32` where those are faster and therefore used.
    pub(super) fn measure<T: Real>() -> Ceiling {
        if T::products_pay(Isa::current()) {
            Self::with_products::<T>()
        } else {
            Self::with_products::<f32>()
        }
    }

    fn with_products<T: Real>() -> Ceiling {
        const SIDE: usize = 256;
        const TIMES: usize = 200;
        let (isa, threads) = (Isa::current(), rayon::current_num_threads());
        let a = vec![T::from_f32(0.5); SIDE * SIDE];
        let b = PackedB::<T>::new(SIDE, SIDE, |_, _| 0.25);
        let products = || {
            (0..threads).into_par_iter().for_each(|_| {
                let mut c = vec![0.0; SIDE * SIDE];
                for _ in 0..TIMES {
                    let rows = Rows { data: &a, stride: SIDE };
                    multiply(isa, SIDE, rows, &b, RowsMut { data: &mut c, stride: SIDE });
                }
            });
        };
        let flops = 2.0 * (SIDE * SIDE * SIDE * TIMES * threads) as f64;
        let mut copy = Copy::new(16 << 20);
        let bytes = 2.0 * copy.bytes() as f64;
        Ceiling {
            gflops: flops / best(products).as_secs_f64() / 1e9,
            gbytes: bytes / best(|| copy.run()).as_secs_f64() / 1e9,
        }
    }
}

/// A copy of memory by all threads.
pub(super) struct Copy {
    from: Vec<f32>,
    to: Vec<f32>,
}

impl Copy {
    pub(super) fn new(len: usize) -> Self {
        Self { from: vec![1.0; len], to: vec![0.0; len] }
    }

    /// Bytes that are copied: as many are read as are written.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.from[..])
    }

    pub(super) fn run(&mut self) {
        let part = self.from.len().div_ceil(rayon::current_num_threads());
        let parts = self.to.par_chunks_mut(part).zip(self.from.par_chunks(part));
        parts.for_each(|(to, from)| to.copy_from_slice(from));
    }
}

/// The shortest of five times.
fn best(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..5).map(time).min().unwrap_or_default()
}

//! Each kernel alone, on shapes of the models. Before a kernel is timed, its result is compared with that of its
//! scalar twin: a wrong kernel is not fast.
//!
//! ```sh
//! cargo bench -p fixnorm-kernels            # all of them
//! cargo bench -p fixnorm-kernels depthwise  # by name
//! ```

use std::fmt;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use fixnorm_kernels::conv::{self, ConvShape, Gradient, Input, Wanted};
use fixnorm_kernels::gemm::{PackedB, Rows, RowsMut, multiply};
use fixnorm_kernels::pool::{self, PoolShape};
use fixnorm_kernels::update::{self, BaseStep, Coefficients, Groups, Moments, Scaling, States};
use fixnorm_kernels::{Isa, Real, bf16, loss};

fn main() {
    // As the command does.
    if let Ok(name) = std::env::var("FIXNORM_ISA") {
        Isa::from_name(&name).and_then(Isa::set_current).expect("FIXNORM_ISA");
    }
    divan::main();
}

/// Values from -1 to 1 that are the same in each run.
fn values<T: Real>(len: usize, seed: u32) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        T::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..len).map(|_| next()).collect()
}

fn exact<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Panics unless both agree within the rounding of `T`, relative to the largest value.
fn verify<T: Real>(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
    let tolerance = scale * if T::BYTES == 4 { 2e-5 } else { 2e-2 };
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what}[{i}]: {got}, expected {expected}");
    }
}

/// A convolution of one of the models.
#[derive(Clone, Copy)]
struct Layer {
    side: usize,
    c_in: usize,
    c_out: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { side, c_in, c_out, kernel, stride, groups } = self;
        write!(f, "{side}px {c_in}to{c_out} {kernel}x{kernel}/{stride} g{groups}")
    }
}

impl Layer {
    const fn new(side: usize, c: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Self {
        Self { side, c_in: c[0], c_out: c[1], kernel, stride, groups }
    }

    fn shape(&self, n: usize) -> ConvShape {
        let input = [n, self.side, self.side, self.c_in];
        ConvShape::symmetric(input, self.c_out, self.kernel, self.stride, self.groups)
    }
}

const LAYERS: [Layer; 10] = [
    Layer::new(56, [24, 144], 1, 1, 1),
    Layer::new(14, [384, 64], 1, 1, 1),
    Layer::new(28, [16, 16], 3, 1, 1),
    Layer::new(14, [256, 256], 3, 1, 1),
    Layer::new(28, [128, 128], 3, 2, 1),
    Layer::new(112, [3, 32], 3, 2, 1),
    Layer::new(14, [128, 128], 3, 1, 4),
    Layer::new(56, [144, 144], 3, 1, 144),
    Layer::new(56, [144, 144], 3, 2, 144),
    Layer::new(14, [672, 672], 5, 1, 672),
];

/// Images of a measurement; one is verified.
const IMAGES: usize = 8;

#[divan::bench(args = LAYERS, types = [f32, bf16])]
fn convolution_forward<T: Real>(bencher: Bencher<'_, '_>, layer: Layer) {
    let isa = Isa::current();
    // Weights that bf16 holds exactly.
    let weight: Vec<f32> =
        values::<bf16>(layer.shape(1).weight_len(), 2).iter().map(|w| w.to_f32()).collect();
    let one = layer.shape(1);
    let x = values::<T>(one.input_len(), 1);
    let (y, _) = conv::forward(isa, &one, Input::plain(&x), &weight, true);
    let twin = conv::scalar::forward(&one, &exact(&x), &exact(&weight));
    verify::<T>("y", &exact(&y), &twin);

    let shape = layer.shape(IMAGES);
    let x = values::<T>(shape.input_len(), 1);
    bencher.counter(ItemsCount::new(2 * shape.macs())).bench_local(|| {
        conv::forward(isa, &shape, Input::plain(black_box(&x)), black_box(&weight), true)
    });
}

#[divan::bench(args = LAYERS, types = [f32, bf16])]
fn convolution_backward<T: Real>(bencher: Bencher<'_, '_>, layer: Layer) {
    let isa = Isa::current();
    let weight: Vec<f32> =
        values::<bf16>(layer.shape(1).weight_len(), 2).iter().map(|w| w.to_f32()).collect();
    let run = |shape: &ConvShape, x: &[T], g: &[T]| {
        let (x, dy) = (Input::plain(black_box(x)), Gradient { g: black_box(g), norm: None });
        conv::backward(isa, shape, x, black_box(&weight), dy, Wanted::Plain(None))
    };
    let one = layer.shape(1);
    let (x, g) = (values::<T>(one.input_len(), 1), values::<T>(one.output_len(), 3));
    let grad = run(&one, &x, &g);
    let (dx, dweight) = conv::scalar::backward(&one, &exact(&x), &exact(&weight), &exact(&g));
    verify::<T>("dx", &exact(&grad.dx), &dx);
    verify::<T>("dweight", &exact(&grad.dweight), &dweight);

    let shape = layer.shape(IMAGES);
    let (x, g) = (values::<T>(shape.input_len(), 1), values::<T>(shape.output_len(), 3));
    bencher.counter(ItemsCount::new(4 * shape.macs())).bench_local(|| run(&shape, &x, &g));
}

#[divan::bench(args = [32, 256, 512], types = [f32, bf16])]
fn product<T: Real>(bencher: Bencher<'_, '_>, side: usize) {
    let isa = Isa::current();
    let (a, b) = (values::<T>(side * side, 1), values::<T>(side * side, 2));
    let packed = PackedB::<T>::new(side, side, |i, j| b[i * side + j].to_f32());
    let mut c = vec![0.0_f32; side * side];
    let run = |a: &[T], c: &mut [f32]| {
        let (a, c) = (Rows { data: a, stride: side }, RowsMut { data: c, stride: side });
        multiply(isa, side, a, &packed, c);
    };
    run(&a, &mut c);
    let (exact_a, exact_b) = (exact(&a), exact(&b));
    let twin: Vec<f64> = (0..side * side)
        .map(|at| {
            let (i, j) = (at / side, at % side);
            (0..side).map(|k| exact_a[i * side + k] * exact_b[k * side + j]).sum()
        })
        .collect();
    verify::<T>("c", &exact(&c), &twin);
    bencher
        .counter(ItemsCount::new(2 * side * side * side))
        .bench_local(|| run(black_box(&a), black_box(&mut c)));
}

const POOL: PoolShape =
    PoolShape { n: IMAGES, h: 112, w: 112, c: 64, kernel: 3, stride: 2, padding: 1 };

#[divan::bench(types = [f32, bf16])]
fn max_pool<T: Real>(bencher: Bencher<'_, '_>) {
    let isa = Isa::current();
    let x = values::<T>(POOL.input_len(), 1);
    let twin = pool::max_pool(Isa::SCALAR, &POOL, &x);
    assert_eq!(exact(&pool::max_pool(isa, &POOL, &x)), exact(&twin));
    bencher
        .counter(BytesCount::new((POOL.input_len() + POOL.output_len()) * T::BYTES))
        .bench_local(|| pool::max_pool(isa, &POOL, black_box(&x)));
}

#[divan::bench(types = [f32, bf16])]
fn max_pool_backward<T: Real>(bencher: Bencher<'_, '_>) {
    let isa = Isa::current();
    let (x, dy) = (values::<T>(POOL.input_len(), 1), values::<T>(POOL.output_len(), 2));
    let twin = pool::max_pool_backward(Isa::SCALAR, &POOL, &x, &dy);
    let got = pool::max_pool_backward(isa, &POOL, &x, &dy);
    verify::<T>("dx", &exact(&got), &exact(&twin));
    bencher
        .counter(BytesCount::new((2 * POOL.input_len() + POOL.output_len()) * T::BYTES))
        .bench_local(|| pool::max_pool_backward(isa, &POOL, black_box(&x), black_box(&dy)));
}

#[divan::bench(types = [f32, bf16])]
fn global_average<T: Real>(bencher: Bencher<'_, '_>) {
    let isa = Isa::current();
    let sizes = [IMAGES, 14, 14, 672];
    let x = values::<T>(sizes.iter().product(), 1);
    let twin = pool::global_average(Isa::SCALAR, sizes, &x);
    verify::<f32>("mean", &exact(&pool::global_average(isa, sizes, &x)), &exact(&twin));
    bencher
        .counter(BytesCount::new(x.len() * T::BYTES))
        .bench_local(|| pool::global_average(isa, sizes, black_box(&x)));
}

#[divan::bench(args = [10, 1000])]
fn cross_entropy(bencher: Bencher<'_, '_>, classes: usize) {
    let isa = Isa::current();
    let logits = values::<f32>(128 * classes, 1);
    let labels: Vec<u32> = (0..128).map(|row| row * 7919 % classes as u32).collect();
    let (value, gradient) = loss::cross_entropy(isa, &logits, &labels, classes, 0.1);
    let (twin, twin_gradient) = loss::cross_entropy(Isa::SCALAR, &logits, &labels, classes, 0.1);
    verify::<f32>("loss", &[value], &[twin]);
    verify::<f32>("gradient", &exact(&gradient), &exact(&twin_gradient));
    bencher
        .counter(BytesCount::new(2 * size_of_val(&logits[..])))
        .bench_local(|| loss::cross_entropy(isa, black_box(&logits), &labels, classes, 0.1));
}

/// Back to norm 1 after a step of 0.1.
fn on_sphere(_group: usize, Moments { ww, wd, dd }: Moments) -> Coefficients {
    let (a, b) = (1.0, -0.1);
    let norm = (ww + 2.0 * a * b * wd + b * b * dd).sqrt();
    Coefficients { a: a / norm, b: b / norm }
}

const SGD: BaseStep =
    BaseStep { momentum: 0.9, gain: 1.0, output: 1.0, lookahead: 0.0, scaling: Scaling::None };

fn states(first: &mut [f32]) -> States<'_> {
    States { first, second: &mut [] }
}

#[divan::bench(args = [10_000, 400_000, 4_000_000])]
fn fixnorm_update(bencher: Bencher<'_, '_>, len: usize) {
    let groups = Groups::whole(len);
    let (mut weight, mut grad, mut velocity) =
        (values::<f32>(len, 1), values::<f32>(len, 2), values::<f32>(len, 3));
    let (mut twin, mut twin_velocity) = (weight.clone(), velocity.clone());
    update::update(&mut weight, &mut grad, states(&mut velocity), &SGD, 0.0, groups, on_sphere);
    let (grad_twin, twin_states) = (&mut values(len, 2), states(&mut twin_velocity));
    update::scalar::update(&mut twin, grad_twin, twin_states, &SGD, 0.0, groups, on_sphere);
    verify::<f32>("weight", &exact(&weight), &exact(&twin));
    verify::<f32>("velocity", &exact(&velocity), &exact(&twin_velocity));
    bencher.counter(BytesCount::new(5 * size_of_val(&weight[..]))).bench_local(|| {
        update::update(&mut weight, &mut grad, states(&mut velocity), &SGD, 0.0, groups, on_sphere);
    });
}

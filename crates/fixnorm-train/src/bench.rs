//! How fast training steps are, how much memory they take, and where their time goes.
//! Not here: running it beside other programs (`benches/peers`).

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Int, Tensor};
use fixnorm::Role;
use fixnorm_kernels::gemm::{PackedB, Rows, RowsMut, multiply};
use fixnorm_kernels::{Isa, Real, bf16, profile};
use fixnorm_nn::registry::ModelSpec;
use fixnorm_nn::{Input, Precision};
use rayon::prelude::*;
use serde::Serialize;

use crate::TrainError;
use crate::recipe::{PrecisionName, Recipe};
use crate::step::{Learner, training_loss};

/// What to measure.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// Model id.
    pub model: String,
    /// Pictures a step.
    pub batch: usize,
    /// Side of a picture.
    pub resolution: usize,
    /// Channels of a picture; the model's own if not given.
    pub channels: Option<usize>,
    /// Precision of activations and products.
    pub precision: PrecisionName,
    /// Steps that are measured, after two that are not.
    pub steps: usize,
    /// Whether the time of each operation is wanted.
    pub profile: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Model id.
    pub model: String,
    /// Pictures a step.
    pub batch: usize,
    /// Side of a picture.
    pub resolution: usize,
    /// `f32` or `bf16`.
    pub precision: PrecisionName,
    /// Threads that the kernels use.
    pub threads: usize,
    /// The instruction set in use.
    pub isa: &'static str,
    /// From the median step.
    pub images_per_second: f64,
    /// Median milliseconds of a step.
    pub step_ms: f64,
    /// Fastest and slowest step.
    pub step_ms_range: [f64; 2],
    /// Steps measured.
    pub steps: usize,
    /// Largest memory of the process so far, where the system tells.
    pub peak_rss_mib: Option<u64>,
    /// By operation, the costliest first; empty unless asked for.
    pub profile: Vec<OpReport>,
    /// What this machine does at best, with a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Ceiling>,
}

/// An operation's part of a step.
#[derive(Clone, Debug, Serialize)]
pub struct OpReport {
    /// What it does, on what shape.
    pub name: String,
    /// Milliseconds a step.
    pub ms: f64,
    /// Of the step's time.
    pub share: f64,
    /// Speed of its products.
    pub gflops: f64,
    /// Speed of its operands, each counted once.
    pub gbytes: f64,
    /// Its time over the least that products and memory allow on this machine.
    pub over_limit: f64,
}

/// What this machine does at best, all threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceiling {
    /// Of products of cached matrices in the measured precision.
    pub gflops: f64,
    /// Of a copy of memory, read and written bytes together.
    pub gbytes: f64,
}

/// Measures training steps on pictures of noise.
///
/// # Errors
/// An unknown model, or a network whose roles cannot be found.
pub fn step(bench: &StepBench) -> Result<StepReport, TrainError> {
    let spec = ModelSpec::find(&bench.model)?;
    let device = Device::flex().autodiff();
    let input = Input { channels: bench.channels.unwrap_or(spec.input.channels), ..spec.input };
    let mut learner = learner(spec, input, bench.precision, &device)?;
    let (n, side) = (bench.batch, bench.resolution);
    let x = Tensor::<4>::random([n, side, side, input.channels], Distribution::Default, &device);
    let classes = Distribution::Uniform(0.0, input.classes as f64);
    let labels = Tensor::<1, Int>::random([n], classes, &device);
    let mut times = Vec::new();
    for step in 0..2 + bench.steps {
        if step == 2 && bench.profile {
            profile::record(true);
        }
        let start = Instant::now();
        let (x, labels) = (x.clone(), labels.clone());
        learner = learner.step_on(x, labels, 0.01).0;
        if step >= 2 {
            times.push(start.elapsed());
        }
    }
    let entries = profile::report();
    profile::record(false);
    let total: Duration = times.iter().sum();
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let median = ms(times[times.len() / 2]);
    let ceiling = bench.profile.then(|| match bench.precision {
        PrecisionName::F32 => ceiling::<f32>(),
        PrecisionName::Bf16 => ceiling::<bf16>(),
    });
    let mut ops: Vec<OpReport> = entries
        .into_iter()
        .map(|(name, entry)| {
            let seconds = entry.time.as_secs_f64();
            let (flops, bytes) = (entry.flops as f64 / 1e9, entry.bytes as f64 / 1e9);
            let least = ceiling.map_or(f64::NAN, |c| (flops / c.gflops).max(bytes / c.gbytes));
            OpReport {
                name,
                ms: seconds * 1e3 / bench.steps as f64,
                share: seconds / total.as_secs_f64(),
                gflops: flops / seconds,
                gbytes: bytes / seconds,
                over_limit: seconds / least,
            }
        })
        .collect();
    ops.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    Ok(StepReport {
        model: bench.model.clone(),
        batch: n,
        resolution: side,
        precision: bench.precision,
        threads: rayon::current_num_threads(),
        isa: Isa::current().name(),
        images_per_second: n as f64 / median * 1e3,
        step_ms: median,
        step_ms_range: [ms(times[0]), ms(times[times.len() - 1])],
        steps: bench.steps,
        peak_rss_mib: peak_rss_mib(),
        profile: ops,
        ceiling,
    })
}

/// A model with FixNorm's default optimizer.
fn learner(
    spec: &ModelSpec,
    input: Input,
    precision: PrecisionName,
    device: &Device,
) -> Result<Learner, TrainError> {
    let recipe = Recipe::default();
    let model = spec.init(input, 0, device);
    let loss = training_loss(recipe.train.label_smoothing, device);
    // Every convolution of our models is followed by a normalization; probing a large one would take
    // longer than the measurement.
    let probe =
        recipe.probe().with_role("*", Role::Free).with_role("*.conv.weight", Role::ScaleInvariant);
    let roles =
        probe.with_role("fc.weight", Role::Head).run(&model, |_| Tensor::zeros([1], device))?;
    let model = model.with_precision(Precision::from(precision));
    let (model, optimizer) = recipe.optimizer_config().init(model, &roles)?;
    Ok(Learner { model, optimizer, loss, device: device.clone() })
}

/// The largest memory this process has had.
pub fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Measures what products in the cache and copies of memory reach, all threads at once.
fn ceiling<T: Real>() -> Ceiling {
    const SIDE: usize = 256;
    const TIMES: usize = 200;
    let (isa, threads) = (Isa::current(), rayon::current_num_threads());
    let a = vec![T::from_f32(0.5); SIDE * SIDE];
    let b = PackedB::<T>::new(SIDE, SIDE, |_, _| 0.25);
    let best = |run: &dyn Fn()| {
        let time = || {
            let start = Instant::now();
            run();
            start.elapsed()
        };
        (0..5).map(|_| time()).min().unwrap_or_default().as_secs_f64()
    };
    let products = best(&|| {
        (0..threads).into_par_iter().for_each(|_| {
            let mut c = vec![0.0; SIDE * SIDE];
            for _ in 0..TIMES {
                let rows = Rows { data: &a, stride: SIDE };
                multiply(isa, SIDE, rows, &b, RowsMut { data: &mut c, stride: SIDE });
            }
        });
    });
    const LEN: usize = 16 << 20;
    let from = vec![1.0_f32; LEN];
    let to = std::sync::Mutex::new(vec![0.0_f32; LEN]);
    let copy = best(&|| {
        let mut to = to.lock().expect("no other thread holds it");
        let part = LEN.div_ceil(threads);
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
    });
    Ceiling {
        gflops: 2.0 * (SIDE * SIDE * SIDE * TIMES * threads) as f64 / products / 1e9,
        gbytes: 2.0 * (LEN * size_of::<f32>()) as f64 / copy / 1e9,
    }
}

/// Makes the kernels use this many threads. Only before they first run.
///
/// # Errors
/// If they have run already.
pub fn use_threads(threads: usize) -> Result<(), TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|error| TrainError::Mismatch(format!("cannot use {threads} threads: {error}")))
}

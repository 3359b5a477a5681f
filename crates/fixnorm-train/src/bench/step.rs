//! Training steps, or inference: speed, memory, and the time of each operation.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use fixnorm_kernels::{Isa, bf16, profile};
use fixnorm_nn::{Input, ModelSpec, Precision, Recompute};
use serde::Serialize;

use super::ceiling::Ceiling;
#[cfg(feature = "gpu")]
use super::launches::watched;
use super::setup::{Spread, learner, peak_rss_mib};
use crate::TrainError;
use crate::device::{DeviceName, Devices};

/// What to measure.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// The device.
    pub device: DeviceName,
    /// Model id.
    pub model: String,
    /// Images of a step.
    pub batch: usize,
    /// Side of an image.
    pub resolution: usize,
    /// Channels of an image; the model's own if not given.
    pub channels: Option<usize>,
    /// Precision of activations and products.
    pub precision: Precision,
    /// What the backward pass computes again instead of keeping it.
    pub recompute: Recompute,
    /// Inference with running statistics instead of training.
    pub inference: bool,
    /// Steps that are measured, after two that are not.
    pub steps: usize,
    /// Whether to measure the time of each operation on a CPU, of each kernel on a GPU.
    pub profile: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Device by its full name.
    pub device: String,
    /// Model id.
    pub model: String,
    /// Images of a step.
    pub batch: usize,
    /// Side of an image.
    pub resolution: usize,
    /// `f32` or `bf16`.
    pub precision: Precision,
    /// `none` or `blocks`.
    pub recompute: Recompute,
    /// Whether a step was inference.
    pub inference: bool,
    /// Threads that the CPU's kernels use.
    pub threads: usize,
    /// The CPU's instruction set in use.
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
    /// Memory that a GPU's allocator holds after the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_mib: Option<u64>,
    /// Milliseconds of the very first step, in which a GPU's kernels are compiled and chosen.
    pub first_step_ms: f64,
    /// Median milliseconds until the host has handed a GPU the whole step. Where the host waited for a result in between, it
    /// would be most of `step_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ms: Option<f64>,
    /// Kernels that a GPU launches a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<usize>,
    /// Different kernels that the first step launched on a GPU, those that were measured to choose others included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step_kernels: Option<usize>,
    /// By kernel of a GPU, the costliest first; empty unless asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelReport>,
    /// By operation, the costliest first; empty unless asked for.
    pub profile: Vec<OpReport>,
    /// This machine's peak speed, with a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Ceiling>,
}

/// An operation's part of a step.
#[derive(Clone, Debug, Serialize)]
pub struct OpReport {
    /// Operation and shape.
    pub name: String,
    /// Milliseconds a step.
    pub ms: f64,
    /// Share of the step's time.
    pub share: f64,
    /// Speed of its products.
    pub gflops: f64,
    /// Speed of its operands, each counted once.
    pub gbytes: f64,
    /// Its time over the least that products and memory allow on this machine.
    pub over_limit: f64,
}

/// A GPU kernel's part of a step.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// The kernel's name.
    pub name: String,
    /// Launches a step.
    pub launches: usize,
    /// Milliseconds a step, in a step of which every launch is measured.
    pub ms: f64,
}

/// Launches of a step.
#[derive(Default)]
pub(super) struct Launched {
    /// Number of launches.
    pub(super) count: usize,
    /// Number of different kernels.
    pub(super) different: usize,
    /// By name, the costliest first.
    pub(super) kernels: Vec<KernelReport>,
}

/// Without a GPU's backend nothing is launched.
#[cfg(not(feature = "gpu"))]
fn watched<R>(_timed: bool, work: impl FnOnce() -> R) -> (R, Launched) {
    (work(), Launched::default())
}

/// Measures training steps, or inference, on random images.
///
/// # Errors
/// An unknown model or device, a model whose roles cannot be found, or a step that the device cannot execute.
pub fn step(bench: &StepBench) -> Result<StepReport, TrainError> {
    let spec = ModelSpec::find(&bench.model)?;
    let chosen = Devices::from(bench.device.resolved());
    let device = chosen.first_for(bench.precision, bench.recompute, bench.batch)?.autodiff();
    let name = || chosen.to_string();
    let failed = |why| TrainError::Device { name: name(), why };
    let on_cpu = device.clone().inner() == Device::flex();
    let input = Input { channels: bench.channels.unwrap_or(spec.input.channels), ..spec.input };
    let (n, side) = (bench.batch, bench.resolution);
    let shape = [n, side, side, input.channels];
    let mut run: Box<dyn FnMut(usize)> = if bench.inference {
        let model = spec.init(input, 0, &device).with_precision(bench.precision).valid();
        let x = Tensor::<4>::random(shape, Distribution::Default, &device.clone().inner());
        Box::new(move |_| drop(model.forward(x.clone())))
    } else {
        let mut learner = learner(spec, input, bench.precision, &device)?;
        learner.model = learner.model.with_recompute(bench.recompute);
        let mut learner = Some(learner);
        let x = Tensor::<4>::random(shape, Distribution::Default, &device);
        let classes = Distribution::Uniform(0.0, input.classes as f64);
        let labels = Tensor::<1, Int>::random([n], classes, &device);
        Box::new(move |step| {
            let (x, labels) = (x.clone(), labels.clone());
            learner = learner.take().map(|learner| learner.step_on(x, labels, step, 0.01).0);
        })
    };
    let mut timed_step = |step| {
        let start = Instant::now();
        run(step);
        let host = start.elapsed();
        // A GPU still computes when the call returns.
        device.sync().map_err(|error| failed(error.to_string()))?;
        Ok::<_, TrainError>([start.elapsed(), host])
    };
    let (first_step, first) = watched(false, || timed_step(0));
    let [first_step, _] = first_step?;
    let (second_step, launched) = watched(false, || timed_step(1));
    second_step?;
    profile::record(bench.profile);
    let times = (2..2 + bench.steps).map(&mut timed_step).collect::<Result<Vec<_>, _>>()?;
    let (times, host): (Vec<_>, Vec<_>) =
        times.into_iter().map(|[step, host]| (step, host)).unzip();
    let entries = profile::report();
    profile::record(false);
    let kernels = if bench.profile && !on_cpu {
        let (step, launched) = watched(true, || timed_step(2 + bench.steps));
        step?;
        launched.kernels
    } else {
        vec![]
    };
    let total: Duration = times.iter().sum();
    let spread = Spread::of(times);
    let ceiling = (bench.profile && on_cpu).then(|| match bench.precision {
        Precision::F32 => Ceiling::measure::<f32>(),
        Precision::Bf16 => Ceiling::measure::<bf16>(),
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
        device: chosen.to_string(),
        model: bench.model.clone(),
        batch: n,
        resolution: side,
        precision: bench.precision,
        recompute: bench.recompute,
        inference: bench.inference,
        threads: rayon::current_num_threads(),
        isa: Isa::current().name(),
        images_per_second: n as f64 / spread.median * 1e3,
        step_ms: spread.median,
        step_ms_range: spread.range,
        steps: bench.steps,
        peak_rss_mib: peak_rss_mib(),
        device_mib: device.memory_pool_usage().map(|usage| usage.bytes_reserved >> 20),
        first_step_ms: first_step.as_secs_f64() * 1e3,
        host_ms: (!on_cpu).then(|| Spread::of(host).median),
        launches: (!on_cpu).then_some(launched.count),
        first_step_kernels: (!on_cpu).then_some(first.different),
        kernels,
        profile: ops,
        ceiling,
    })
}

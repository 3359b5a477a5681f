//! Optimizer steps: FixNorm's update of a whole model, beside a copy of memory.

use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use fixnorm_kernels::Isa;
use fixnorm_nn::{ModelSpec, Precision};
use serde::Serialize;

use super::ceiling::Copy;
use super::setup::{Spread, learner, peak_rss_mib};
use crate::TrainError;

/// What to measure.
#[derive(Clone, Debug)]
pub struct OptimBench {
    /// Model id.
    pub model: String,
    /// Steps that are measured, after two that are not.
    pub steps: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct OptimReport {
    /// Model id.
    pub model: String,
    /// Number of values that a step updates.
    pub parameters: usize,
    /// Threads that the kernels use.
    pub threads: usize,
    /// The instruction set in use.
    pub isa: &'static str,
    /// From the median step.
    pub steps_per_second: f64,
    /// Median milliseconds of a step.
    pub step_ms: f64,
    /// Fastest and slowest step.
    pub step_ms_range: [f64; 2],
    /// Steps measured.
    pub steps: usize,
    /// Bytes that a step must read or write: weight, gradient and velocity in, weight and velocity out.
    pub bytes: usize,
    /// Median milliseconds of a copy that reads and writes as many bytes in all, between the steps.
    pub copy_ms: f64,
    /// The step's time over the copy's.
    pub over_copy: f64,
    /// Largest memory of the process so far, where the system reports it.
    pub peak_rss_mib: Option<u64>,
}

/// Measures optimizer steps of FixNorm's default (SGD with momentum, norms held) on gradients of noise.
///
/// # Errors
/// An unknown model, or a model whose roles cannot be found.
pub fn optim(bench: &OptimBench) -> Result<OptimReport, TrainError> {
    let spec = ModelSpec::find(&bench.model)?;
    let device = Device::flex().autodiff();
    let learner = learner(spec, spec.input, Precision::F32, &device)?;
    let (mut model, mut optimizer) = (learner.model, learner.optimizer);
    let mut noise = Noise::default();
    model.visit(&mut noise);
    let parameters = noise.values;
    let bytes = 5 * size_of::<f32>() * parameters;
    let mut copy = Copy::new(bytes / 2 / size_of::<f32>());
    let (mut steps, mut copies) = (Vec::new(), Vec::new());
    for step in 0..2 + bench.steps {
        let mut noise = Noise::default();
        model.visit(&mut noise);
        // The copy runs on a thread of the pool, where it is fastest; the step on this one, as in training.
        rayon::scope(|_| copy.run());
        let start = Instant::now();
        model = optimizer.step(0.01, model, noise.gradients);
        let stepped = start.elapsed();
        let start = Instant::now();
        rayon::scope(|_| copy.run());
        let copied = start.elapsed();
        if step >= 2 {
            steps.push(stepped);
            copies.push(copied);
        }
    }
    let (step, copy) = (Spread::of(steps), Spread::of(copies));
    Ok(OptimReport {
        model: bench.model.clone(),
        parameters,
        threads: rayon::current_num_threads(),
        isa: Isa::current().name(),
        steps_per_second: 1e3 / step.median,
        step_ms: step.median,
        step_ms_range: step.range,
        steps: bench.steps,
        bytes,
        copy_ms: copy.median,
        over_copy: step.median / copy.median,
        peak_rss_mib: peak_rss_mib(),
    })
}

/// Gives every trainable parameter a gradient.
#[derive(Default)]
struct Noise {
    gradients: GradientsParams,
    values: usize,
}

impl ModuleVisitor for Noise {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            let weight = param.val().inner();
            let noise = Distribution::Normal(0.0, 0.01);
            let gradient = Tensor::<D>::random(weight.dims(), noise, &weight.device());
            self.gradients.register(param.id, gradient);
            self.values += weight.shape().num_elements();
        }
    }
}

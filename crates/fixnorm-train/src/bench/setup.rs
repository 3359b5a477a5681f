//! What the benchmarks share: a model with its optimizer, the spread of times, memory, threads.

use std::time::Duration;

use burn::tensor::{Device, Tensor};
use fixnorm::Role;
use fixnorm_nn::{Input, ModelSpec, Precision};

use crate::TrainError;
use crate::ranks::Ranks;
use crate::recipe::Recipe;
use crate::session::replicas::Replicas;
use crate::session::step::Learner;

/// A model with FixNorm's default optimizer.
pub(super) fn learner(
    spec: &'static ModelSpec,
    input: Input,
    precision: Precision,
    device: &Device,
) -> Result<Learner, TrainError> {
    let recipe = Recipe::default().resolved();
    let model = spec.init(input, 0, device);
    let criterion = recipe.train.criterion();
    // Every convolution of our models is followed by a normalization; probing a large one would take
    // longer than the measurement.
    let probe =
        recipe.probe().with_role("*", Role::Free).with_role("*.conv.weight", Role::ScaleInvariant);
    let roles =
        probe.with_role("fc.weight", Role::Head).run(&model, |_| Tensor::zeros([1], device))?;
    let model = model.with_precision(precision);
    let (model, optimizer) = recipe.optimizer_config().init(model, &roles)?;
    let device = device.clone();
    Ok(Learner {
        model,
        optimizer,
        criterion,
        clip_norm: None,
        seed: 0,
        device,
        replicas: Replicas::default(),
        ranks: Ranks::default(),
    })
}

/// Milliseconds of repeated measurements.
pub(super) struct Spread {
    pub(super) median: f64,
    /// Least and most.
    pub(super) range: [f64; 2],
}

impl Spread {
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            median: ms(times[times.len() / 2]),
            range: [ms(times[0]), ms(times[times.len() - 1])],
        }
    }
}

/// The largest memory this process has had.
pub fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Makes the kernels use this many threads. Only before they first run.
///
/// # Errors
/// If they have run already.
pub fn use_threads(threads: usize) -> Result<(), TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|error| TrainError::Threads { threads, why: error.to_string() })
}

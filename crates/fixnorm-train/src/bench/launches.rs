//! Kernels that a GPU step launches: how often, and how long they run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn_cubecl::cubecl::config::{TypeNameFormatLevel, type_name_format};
use burn_cubecl::cubecl::future::block_on;
use burn_cubecl::cubecl::launched::LaunchedKernels;
use burn_cubecl::cubecl::logging::{
    Duration, LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod, TimingRequest,
};

use super::step::{KernelReport, Launched};

/// Runs `work` and returns what it launched on GPUs, with the time of each kernel if `timed`: launches then follow each other
/// less closely. Waits for all of them.
pub(super) fn watched<R>(timed: bool, work: impl FnOnce() -> R) -> (R, Launched) {
    let seen = Arc::new(Seen { timed, kernels: Mutex::default() });
    let (kernels, observation) = (LaunchedKernels::new(), LaunchObservation::new(seen.clone()));
    let result = work();
    drop(observation);
    let different = kernels.finish().len();
    let seen = std::mem::take(&mut *seen.lock());
    let mut kernels: Vec<_> = seen.into_iter().map(|(name, kernel)| kernel.report(name)).collect();
    kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms).then(b.launches.cmp(&a.launches)));
    let count = kernels.iter().map(|kernel| kernel.launches).sum();
    (result, Launched { count, different, kernels })
}

struct Seen {
    timed: bool,
    kernels: Mutex<BTreeMap<&'static str, Kernel>>,
}

#[derive(Default)]
struct Kernel {
    launches: usize,
    /// Measured and read.
    time: Duration,
    /// Measured and not read yet.
    unread: Vec<ProfileDuration>,
}

impl Kernel {
    fn report(self, name: &str) -> KernelReport {
        let read = self.unread.into_iter().filter_map(|profile| block_on(profile.resolve()));
        let time = read.map(|ticks| ticks.duration()).sum::<Duration>() + self.time;
        let name = type_name_format(name, TypeNameFormatLevel::Balanced);
        KernelReport { name, launches: self.launches, ms: time.as_secs_f64() * 1e3 }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Kernel>> {
        // Every entry is whole at any time.
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaunchObserver for Seen {
    fn launched(&self, kernel: &'static str) {
        self.lock().entry(kernel).or_default().launches += 1;
    }

    fn timing(&self) -> TimingRequest {
        if self.timed { TimingRequest::Deferred } else { TimingRequest::None }
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        self.lock().entry(kernel).or_default().unread.push(profile);
    }

    // Instead of `profiled`, while CubeCL's own log of times is on.
    fn timed(&self, kernel: &'static str, duration: Duration, _: TimingMethod) {
        self.lock().entry(kernel).or_default().time += duration;
    }
}

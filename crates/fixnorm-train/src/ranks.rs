//! The processes that train one model together, its ranks: started by `mpirun` or `srun`, they share every batch as several
//! devices do.
//!
//! Rank 0 leads the run and is the only one that writes. A process that no such program started is alone, and everything here
//! is trivial.
//! Not here: what ranks tell each other (`session/further.rs`, `session/exchange.rs`), MPI itself (`ranks/mpi.rs`).

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(test)]
pub(crate) mod threads;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fixnorm_nn::Processes;

use crate::session::Stop;

/// What carries values between ranks. Every rank calls the same functions in the same order.
pub(crate) trait Transport: Processes {
    /// This process's number.
    fn rank(&self) -> usize;

    /// The bytes of rank 0, which it gives and the others replace theirs by.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// Ends all ranks at once.
    fn abort(&self, code: u8) -> !;
}

/// This process's place among the ranks of a job; by default it is alone.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    /// None for a process that is alone.
    job: Option<Arc<dyn Transport>>,
    /// Asks the run to stop: if set on one rank, it is set on all of them with the next sum.
    stop: Stop,
}

/// Processes that cannot train together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RanksError {
    /// A build without MPI.
    #[error(
        "{launcher} started {count} processes, and this build cannot train in several: build it with `--features mpi` and \
         start them by mpirun or `srun --mpi=pmix`, or start one process"
    )]
    NotBuilt {
        /// The program that started them.
        launcher: &'static str,
        /// Their number.
        count: usize,
    },
    /// Processes that do not find each other.
    #[error(
        "{launcher} started {count} processes, and MPI finds {found}: start them by the mpirun of the MPI that fixnorm is \
         built with, or by `srun --mpi=pmix`"
    )]
    Apart {
        /// The program that started them.
        launcher: &'static str,
        /// Their number.
        count: usize,
        /// The number that MPI reports.
        found: usize,
    },
    /// A batch that the ranks cannot share evenly.
    #[error(
        "train.batch_size = {batch_size} is not divisible by {shares}, the devices of {ranks} ranks"
    )]
    Uneven {
        /// Images of a batch.
        batch_size: usize,
        /// Devices of all ranks.
        shares: usize,
        /// Number of ranks.
        ranks: usize,
    },
    /// A rank that was started for another run.
    #[error("rank {rank} has another plan than rank 0: {}", changes.join("; "))]
    OtherPlan {
        /// The rank.
        rank: usize,
        /// Key, rank 0's value and this rank's of each difference.
        changes: Vec<String>,
    },
    /// A rank that does not understand what rank 0 sends.
    #[error("rank {rank} cannot read what rank 0 sent ({why}): all ranks need the same build")]
    OtherBuild {
        /// The rank.
        rank: usize,
        /// What failed.
        why: String,
    },
    /// Weights that are not equal on all ranks.
    #[error(
        "after step {step} the weights of ranks {ranks:?} are not those of rank 0; no checkpoint was written. All ranks need \
         the same build and instruction set (FIXNORM_ISA)"
    )]
    Drifted {
        /// Steps taken.
        step: usize,
        /// The ranks that differ from rank 0.
        ranks: Vec<usize>,
    },
}

impl Ranks {
    /// The ranks of the job that started this process, according to its environment variables, which `variable` returns.
    ///
    /// # Errors
    /// [`RanksError::NotBuilt`], [`RanksError::Apart`].
    pub fn join(variable: impl Fn(&str) -> Option<String>) -> Result<Self, RanksError> {
        let job = launched(variable).map(|(launcher, count)| connect(launcher, count));
        Ok(Self { job: job.transpose()?, stop: Stop::default() })
    }

    /// The same ranks, with what asks this one to stop.
    pub(crate) fn with_stop(&self, stop: &Stop) -> Self {
        Self { job: self.job.clone(), stop: stop.clone() }
    }

    /// Number of ranks.
    pub fn count(&self) -> usize {
        self.job.as_ref().map_or(1, |job| job.count())
    }

    /// This process's rank, from 0.
    pub fn rank(&self) -> usize {
        self.job.as_ref().map_or(0, |job| job.rank())
    }

    /// Whether this process leads the run and writes it: rank 0.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Ends all ranks at once, with this exit code; a process that is alone goes on.
    pub fn abort(&self, code: u8) {
        if let Some(job) = &self.job {
            job.abort(code);
        }
    }

    /// Whether `devices` of each rank share a batch evenly.
    ///
    /// # Errors
    /// [`RanksError::Uneven`].
    pub(crate) fn check_batch(&self, batch_size: usize, devices: usize) -> Result<(), RanksError> {
        let (ranks, shares) = (self.count(), self.count() * devices);
        if batch_size.is_multiple_of(shares) {
            Ok(())
        } else {
            Err(RanksError::Uneven { batch_size, shares, ranks })
        }
    }

    /// The other processes, if there are any, for means over all of them.
    pub(crate) fn processes(&self) -> Option<Arc<dyn Processes>> {
        let job = self.job.clone()?;
        Some(job)
    }

    /// Sums `values` over all ranks, and sets `stop` if it is set on any of them.
    pub(crate) fn sum(&self, values: &mut Vec<f32>) {
        let Some(job) = &self.job else { return };
        let len = values.len();
        values.resize(len + job.count(), 0.0);
        values[len + job.rank()] = self.stop.load(Ordering::Relaxed) as f32;
        job.sum(values);
        let signal = values.drain(len..).fold(0.0, f32::max);
        self.stop.fetch_max(signal as usize, Ordering::Relaxed);
    }

    /// The bytes of rank 0.
    pub(crate) fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(job) = &self.job {
            job.broadcast(&mut bytes);
        }
        bytes
    }

    /// The ranks on which `holds`.
    pub(crate) fn which(&self, holds: bool) -> Vec<usize> {
        let mut flags = vec![0.0; self.count()];
        flags[self.rank()] = f32::from(u8::from(holds));
        self.sum(&mut flags);
        (0..flags.len()).filter(|&rank| flags[rank] > 0.0).collect()
    }
}

/// Variables of the programs that start processes: the name, the number of processes, this one's rank. Slurm has a number of
/// tasks for a batch script too, which is one process: hence that of the step.
const LAUNCHERS: [(&str, &str, &str); 4] = [
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("torchrun", "WORLD_SIZE", "RANK"),
];

/// The program that started this process with others, and their number.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
    let started = LAUNCHERS
        .iter()
        .find_map(|&(name, count, rank)| Some((name, number(count)?, number(rank)?)));
    started.filter(|&(_, count, _)| count > 1).map(|(name, count, _)| (name, count))
}

#[cfg(feature = "mpi")]
fn connect(launcher: &'static str, count: usize) -> Result<Arc<dyn Transport>, RanksError> {
    // Its processes are none of MPI's.
    let world = if launcher == "torchrun" { None } else { mpi::World::join() };
    let found = world.as_ref().map_or(1, |world| world.count());
    match world {
        Some(world) if found == count => Ok(Arc::new(world)),
        _ => Err(RanksError::Apart { launcher, count, found }),
    }
}

#[cfg(not(feature = "mpi"))]
fn connect(launcher: &'static str, count: usize) -> Result<Arc<dyn Transport>, RanksError> {
    Err(RanksError::NotBuilt { launcher, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched_with(variables: &[(&str, &str)]) -> Option<(&'static str, usize)> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        launched(|name| found(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_job_is_known_by_its_variables() {
        assert_eq!(launched_with(&[]), None);
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3")];
        assert_eq!(launched_with(&mpirun), Some(("mpirun", 4)));
        assert_eq!(launched_with(&[("PMI_SIZE", "2"), ("PMI_RANK", "0")]), Some(("mpiexec", 2)));
        let torchrun = [("WORLD_SIZE", "8"), ("RANK", "0"), ("LOCAL_RANK", "0")];
        assert_eq!(launched_with(&torchrun), Some(("torchrun", 8)));
        let srun = [("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "4")];
        assert_eq!(launched_with(&srun), Some(("srun", 4)));
        // A batch script of four tasks is one process.
        assert_eq!(launched_with(&srun[..2]), None);
        let one = [("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")];
        assert_eq!(launched_with(&one), None);
    }

    #[test]
    #[cfg(not(feature = "mpi"))]
    fn a_build_without_mpi_refuses_a_job() {
        let variable = |name: &str| name.starts_with("PMI_").then(|| "2".to_owned());
        let error = Ranks::join(variable).unwrap_err().to_string();
        assert!(error.contains("mpiexec started 2") && error.contains("--features mpi"), "{error}");
    }

    #[test]
    fn a_stop_on_one_rank_stops_all() {
        let stops = threads::run(3, |ranks| {
            if ranks.rank() == 1 {
                ranks.stop.store(15, Ordering::Relaxed);
            }
            let mut values = vec![ranks.rank() as f32, 1.0];
            ranks.sum(&mut values);
            assert_eq!(values, [3.0, 3.0]);
            assert_eq!(ranks.which(ranks.rank() != 1), [0, 2]);
            assert_eq!(ranks.broadcast(vec![ranks.rank() as u8 + 7]), [7]);
            ranks.stop.load(Ordering::Relaxed)
        });
        assert_eq!(stops, [15; 3]);
    }

    #[test]
    fn ranks_share_a_batch_evenly() {
        let checked = |batch_size| {
            threads::run(2, move |ranks| {
                ranks.check_batch(batch_size, 3).map_err(|e| e.to_string())
            })
        };
        assert_eq!(checked(12), [Ok(()), Ok(())]);
        let error = checked(14).swap_remove(0).unwrap_err();
        assert!(error.contains("train.batch_size = 14") && error.contains("by 6"), "{error}");
    }
}

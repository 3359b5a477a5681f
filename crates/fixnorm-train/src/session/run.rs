//! A run from its start, or from its last checkpoint, to its result.
//! Not here: the training itself (`train.rs`).

use std::path::{Path, PathBuf};

use fixnorm_data::DataSet;

use crate::ranks::Ranks;
use crate::run_dir::event::{Event, Observer};
use crate::run_dir::{Failure, RunDir};
use crate::session::adapt::adapt;
use crate::session::checkpoint::Checkpoints;
use crate::session::further::dismiss;
use crate::session::outcome::{Outcome, Stop};
use crate::session::prepare::{Prepared, assemble, fresh, prepare_among};
use crate::session::train::Session;
use crate::{Plan, TrainError};

/// Trains from the start, into a new directory. This process leads `ranks`; the others [`take_part`](super::take_part).
///
/// # Errors
/// Anything that keeps it from finishing; the last good checkpoint is kept.
pub fn start(
    plan: &Plan,
    data: &DataSet,
    out: &Path,
    observer: &mut dyn Observer,
    ranks: &Ranks,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let prepared = prepare_or_diverge(plan, data, &ranks.with_stop(stop))?;
    let outcome = start_in(RunDir::create(out, plan)?, plan, data, prepared, observer, stop)?;
    dismiss(ranks);
    Ok(outcome)
}

/// As [`start`], into the first free of the directories PREFIX-1, PREFIX-2, … Several processes may do this at once.
///
/// # Errors
/// As [`start`].
pub fn start_numbered(
    plan: &Plan,
    data: &DataSet,
    prefix: &Path,
    observer: &mut dyn Observer,
    ranks: &Ranks,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let prepared = prepare_or_diverge(plan, data, &ranks.with_stop(stop))?;
    let dir = RunDir::create_numbered(prefix, plan)?;
    let outcome = start_in(dir, plan, data, prepared, observer, stop)?;
    dismiss(ranks);
    Ok(outcome)
}

/// First what can fail without leaving a directory behind. A start whose loss is not finite is a run that diverged: the inner
/// error is recorded in its directory.
fn prepare_or_diverge(
    plan: &Plan,
    data: &DataSet,
    ranks: &Ranks,
) -> Result<Result<Prepared, TrainError>, TrainError> {
    match prepare_among(plan, data, ranks) {
        Err(error) if !error.is_divergence() => Err(error),
        prepared => Ok(prepared),
    }
}

fn start_in(
    dir: RunDir,
    plan: &Plan,
    data: &DataSet,
    prepared: Result<Prepared, TrainError>,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let out = dir.root().to_owned();
    recording_failure(&out, || {
        let prepared = prepared?;
        dir.save_roles(&prepared.roles)?;
        Session::new(plan, data, dir, prepared, None)?.train(observer, stop)
    })
}

/// Resumes the run in `out` from its last checkpoint, to the same bits on a CPU. `plan` is what the user asks for now: it
/// must be the one that the run was started with, except for the device, the place of the data (of the same content), and
/// more epochs; these are saved with the run from now on. A finished run is extended by more epochs. The number of ranks is
/// no part of the plan.
///
/// # Errors
/// No run there, another plan, or whatever [`start`] fails with.
pub fn resume(
    plan: &Plan,
    data: &DataSet,
    out: &Path,
    observer: &mut dyn Observer,
    ranks: &Ranks,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let outcome = resume_among(plan, data, out, observer, &ranks.with_stop(stop), stop)?;
    dismiss(ranks);
    Ok(outcome)
}

fn resume_among(
    plan: &Plan,
    data: &DataSet,
    out: &Path,
    observer: &mut dyn Observer,
    ranks: &Ranks,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let (dir, saved) = RunDir::open(out)?;
    let keep_last = plan.recipe.checkpoint.keep_last;
    let from = Checkpoints::new(dir.files().checkpoints_path(), keep_last).latest();
    let step = match &from {
        Some(checkpoint) => Checkpoints::progress(checkpoint)?.step,
        None => 0,
    };
    let changes = adapt(&saved, plan, out, step)?;
    let is_longer = plan.recipe.train.epochs > saved.recipe.train.epochs;
    if let Some(summary) = dir.files().result()? {
        if !is_longer {
            return Ok(Outcome::Finished(Box::new(summary)));
        }
        if from.is_none() {
            return Err(TrainError::NoCheckpoint(out.to_owned()));
        }
        dir.remove_result()?;
    }
    if !changes.is_empty() || saved.made_by.device != plan.made_by.device {
        dir.save_plan(plan)?;
    }
    if !changes.is_empty() {
        observer.event(&Event::Changed { changes });
    }
    recording_failure(out, || resume_in(dir, plan, data, from, observer, (ranks, stop)))
}

fn resume_in(
    dir: RunDir,
    plan: &Plan,
    data: &DataSet,
    from: Option<PathBuf>,
    observer: &mut dyn Observer,
    (ranks, stop): (&Ranks, &Stop),
) -> Result<Outcome, TrainError> {
    let prepared = match (&from, dir.files().roles()?) {
        (Some(_), Some(roles)) => {
            // The checkpoint replaces every weight: a file to start from may be gone by now.
            let device = plan.made_by.device.first()?.autodiff();
            assemble(plan, fresh(plan, &device)?, roles, device, ranks)?
        }
        _ => {
            let prepared = prepare_among(plan, data, ranks)?;
            dir.save_roles(&prepared.roles)?;
            prepared
        }
    };
    Session::new(plan, data, dir, prepared, from)?.train(observer, stop)
}

/// Runs a session of the run in `out`; its error, if any, is saved as `failure.json`.
fn recording_failure(
    out: &Path,
    session: impl FnOnce() -> Result<Outcome, TrainError>,
) -> Result<Outcome, TrainError> {
    Failure::clear(out)?;
    session().inspect_err(|error| {
        // Best effort: the disk may be full, and the error itself is returned.
        let _ = Failure::of(error).save(out);
    })
}

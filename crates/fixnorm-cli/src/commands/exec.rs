//! `fixnorm tune --exec`, and the process that runs a trial's command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fixnorm_train::files::write_atomic;
use fixnorm_train::tune::exec::{CommandJobs, CommandStudy, Supervised};
use fixnorm_train::tune::{
    Ended, Outcome, Place, StudyResult, TrialRow, TuneObserver, Worker, exec, to_csv, to_optuna,
};
use fixnorm_train::{Stop, TrainError};

use crate::args::{Format, SuperviseArgs, TuneArgs};
use crate::output;
use crate::run::{interrupted, made_by};

/// Whether the study at a place is one of a command.
pub(crate) fn is_command(place: &Place) -> bool {
    let exists = place.exists().unwrap_or(false);
    // What cannot be opened is refused where it is opened to work on it.
    let store = exists.then(|| place.open_read_only().ok()).flatten();
    store.is_some_and(|store| exec::CommandPlan::from_toml(&store.study().plan).is_some())
}

/// Tunes a command, or shows the study.
pub(crate) fn run(
    args: &TuneArgs,
    place: &Place,
    stop: &Stop,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let provenance = serde_json::to_string(&made_by(&Default::default()))?;
    let options = args.command_options(provenance)?;
    let (store, ended) = if args.show {
        let store = place.open_read_only().map_err(TrainError::from)?;
        (store, Ended::Done("nothing was run".to_owned()))
    } else {
        let mut study = CommandStudy::open_or_create(place, &options).map_err(TrainError::from)?;
        let ended = work(&mut study, args, place, stop)?;
        (study.store, ended)
    };
    let result = StudyResult::of(&*store).map_err(TrainError::from)?;
    match format {
        Format::Json => output::json(&result.to_json())?,
        Format::Text => print(&result)?,
    }
    if let Some(out) = &args.export_csv {
        write_atomic(out, to_csv(&*store).map_err(TrainError::from)?.as_bytes())?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(out) = &args.export_optuna {
        to_optuna(&*store, out).map_err(TrainError::from)?;
        eprintln!("wrote {}", out.display());
    }
    match ended {
        Ended::Done(reason) => {
            eprintln!("{reason}");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Interrupted => {
            eprintln!("stopped; resume with:\n  fixnorm tune --study {place}");
            Ok(interrupted(stop))
        }
    }
}

fn work(
    study: &mut CommandStudy,
    args: &TuneArgs,
    place: &Place,
    stop: &Stop,
) -> anyhow::Result<Ended> {
    let runs = args.runs.clone().unwrap_or_else(|| place.runs());
    eprintln!("study {place}, runs in {}", runs.display());
    let definition = study.store.study().clone();
    let jobs = CommandJobs {
        plan: &study.plan,
        axes: definition.search.axes(),
        metric: &definition.metric,
        supervisor: [std::env::current_exe()?, PathBuf::from("supervise")],
    };
    let result = StudyResult { study: definition.clone(), trials: vec![], choice: None };
    let mut lines = Lines { result, printed: vec![] };
    let mut worker = Worker {
        store: &mut *study.store,
        jobs: &jobs,
        runs,
        lease: Duration::from_secs(u64::from(args.lease)),
    };
    Ok(worker.work(&mut lines, stop).map_err(TrainError::from)?)
}

/// Runs a trial's command.
pub(crate) fn supervise(args: &SuperviseArgs) -> anyhow::Result<ExitCode> {
    let [stdout, stderr, command @ ..] = &args.words[..] else {
        return Err(output::UsageError("two logs and a command are missing").into());
    };
    output::line(&exec::supervise(&Supervised {
        command: command.to_vec(),
        logs: [PathBuf::from(stdout), PathBuf::from(stderr)],
        timeout: args.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// A line on stderr for each trial that has ended.
struct Lines {
    result: StudyResult,
    printed: Vec<usize>,
}

impl TuneObserver for Lines {
    fn changed(&mut self, trials: &[TrialRow]) {
        for trial in trials {
            let is_over = trial.jobs.iter().all(|job| !job.state.is_open());
            if is_over && !self.printed.contains(&trial.number) {
                eprintln!("{}", line(&self.result, trial));
                self.printed.push(trial.number);
            }
        }
    }
}

/// Number, knobs, value and failure of a trial.
fn line(result: &StudyResult, trial: &TrialRow) -> String {
    let knobs = result
        .knobs(trial)
        .into_iter()
        .map(|(name, value)| format!("{name} {:.6}", value.as_f64().unwrap_or(f64::NAN)));
    let knobs: Vec<String> = knobs.collect();
    let outcome = match (trial.outcome(), result.value(trial)) {
        (_, Some(value)) => format!("{} {value:.5}", result.study.metric.name),
        (Outcome::Bound { .. }, _) => "stopped early".to_owned(),
        (Outcome::Failed, _) => {
            let reason = trial.jobs.iter().find_map(|job| job.reason.as_deref());
            format!("failed: {}", reason.and_then(|reason| reason.lines().next()).unwrap_or("-"))
        }
        _ => "running".to_owned(),
    };
    format!("trial {:>3}  {}  {outcome}", trial.number, knobs.join("  "))
}

/// Every trial and the best one.
pub(crate) fn print(result: &StudyResult) -> anyhow::Result<()> {
    for trial in &result.trials {
        output::line(&line(result, trial))?;
    }
    match result.best() {
        Some(best) => output::line(&format!("best: {}", line(result, best))),
        None => output::line("no trial has a score"),
    }
}

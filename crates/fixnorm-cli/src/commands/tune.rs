//! `fixnorm tune`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fixnorm_train::files::{check_file, write_atomic};
use fixnorm_train::tune::{
    Asker, Ended, OpenStudy, Place, RecipeJobs, Setup, StoreError, Tuned, Worker, to_csv,
    to_optuna, tuned_recipe,
};
use fixnorm_train::{RecipeBuilder, Stop, TrainError};

use crate::args::{Format, TuneArgs};
use crate::commands::exec;
use crate::output;
use crate::run::{interrupted, made_by, recipe, stop_on_signals};
use crate::trials::{self, TrialTable};

pub(crate) fn run(args: &TuneArgs, format: Format) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals()?;
    for file in [&args.out, &args.export_csv, &args.export_optuna].into_iter().flatten() {
        check_file(file)?;
    }
    let path = match &args.study {
        Some(path) => path.clone(),
        None => new_study()?,
    };
    let place = Place::named(&path).map_err(TrainError::from)?;
    if args.exec.exec.is_some() || args.study.is_some() && exec::is_command(&place) {
        let done = exec::run(args, &place, &stop, format);
        if args.study.is_none() && done.is_err() {
            // Best effort: the name that was taken for nothing. A file with a study in it is kept.
            let is_empty = fs::metadata(&path).is_ok_and(|data| data.len() == 0);
            let _ = is_empty.then(|| fs::remove_file(&path));
        }
        return done;
    }
    let opened = open(args, &path, &place, &stop);
    if args.study.is_none() && !matches!(opened, Ok(Some(_))) {
        // Best effort: the name that was taken for nothing.
        let _ = fs::remove_file(&path);
    }
    let Some(mut study) = opened? else {
        eprintln!("stopped before the first trial");
        return Ok(interrupted(&stop));
    };
    let ended = if args.show {
        Ended::Done("nothing was trained".to_owned())
    } else {
        work(&mut study, args, &place, &stop)?
    };
    finish(&study, args, format)?;
    match ended {
        Ended::Done(reason) => {
            eprintln!("{reason}");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Interrupted => {
            eprintln!("stopped and saved; resume with:\n  fixnorm tune --study {place}");
            Ok(interrupted(&stop))
        }
    }
}

/// An empty file for a new study: the first of runs/tune-1.study, -2, … that does not exist yet. It is created at once,
/// so that of two commands started at the same time each has its own.
fn new_study() -> Result<PathBuf, TrainError> {
    let io = |action, path: &Path, source| TrainError::Io { action, path: path.to_owned(), source };
    let dir = Path::new("runs");
    fs::create_dir_all(dir).map_err(|source| io("create", dir, source))?;
    let mut number = 1;
    loop {
        let path = dir.join(format!("tune-{number}.study"));
        match File::create_new(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(io("create", &path, error)),
        }
    }
}

/// The study in `path`, resumed or new; none if stopped while its start was measured.
fn open(
    args: &TuneArgs,
    path: &Path,
    place: &Place,
    stop: &Stop,
) -> Result<Option<OpenStudy>, TrainError> {
    let given = args.recipe.is_given().then(|| recipe(RecipeBuilder::new(), &args.recipe, Ok));
    let device = args.device.device.clone();
    let asker = Asker {
        recipe: given.transpose()?,
        made_by: made_by(&device.clone().unwrap_or_default()),
        device,
        trains: !args.show,
    };
    let options = args.options();
    if args.show || args.study.is_some() && place.exists()? {
        match OpenStudy::resume(path, &options, &asker) {
            // Another process is about to fill it.
            Err(TrainError::Store(StoreError::Empty(_))) if !args.show => {}
            resumed => return resumed.map(Some),
        }
    }
    let mut progress = |setup: Setup<'_>| match setup {
        Setup::Measuring => eprintln!("measuring where to start"),
        Setup::Measured(start, knobs) => eprintln!("{}", trials::start_line(start, knobs)),
        Setup::Law { start: [angle, alpha], steps, batch } => eprintln!(
            "start: angle {angle:.5} rad, alpha {alpha:.4} (the law for {steps} steps of {batch} images)"
        ),
    };
    OpenStudy::create(path, &options, &asker, &mut progress, stop)
}

fn work(
    study: &mut OpenStudy,
    args: &TuneArgs,
    place: &Place,
    stop: &Stop,
) -> anyhow::Result<Ended> {
    let runs = args.runs.clone().unwrap_or_else(|| place.runs());
    let mut table = TrialTable::new(study.knobs, study.store.study().epochs);
    eprintln!("study {place}, runs in {}", runs.display());
    let jobs =
        RecipeJobs { plan: &study.plan, knobs: study.knobs, program: std::env::current_exe()? };
    let mut worker = Worker {
        store: &mut *study.store,
        jobs: &jobs,
        runs,
        lease: Duration::from_secs(u64::from(args.lease)),
    };
    Ok(worker.work(&mut table, stop).map_err(TrainError::from)?)
}

fn finish(study: &OpenStudy, args: &TuneArgs, format: Format) -> anyhow::Result<()> {
    let tuned = Tuned::of(&*study.store, study.knobs).map_err(TrainError::from)?;
    match format {
        Format::Json => output::json(&tuned.to_json())?,
        Format::Text => trials::print(&tuned)?,
    }
    if let Some(out) = &args.out {
        write_atomic(out, tuned_recipe(&tuned, &study.plan)?.as_bytes())?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(out) = &args.export_csv {
        write_atomic(out, to_csv(&*study.store).map_err(TrainError::from)?.as_bytes())?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(out) = &args.export_optuna {
        to_optuna(&*study.store, out).map_err(TrainError::from)?;
        eprintln!("wrote {}", out.display());
    }
    Ok(())
}

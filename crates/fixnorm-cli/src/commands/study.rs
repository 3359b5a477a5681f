//! `fixnorm study`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fixnorm_train::TrainError;
use fixnorm_train::tune::{Place, State, Store, StoreError, StudyResult};
use serde_json::{Value, json};

use crate::args::{
    Format, StudyCommand, StudyCopyArgs, StudyDeleteArgs, StudyListArgs, StudyShowArgs,
};
use crate::commands::exec;
use crate::output;

pub(crate) fn run(command: &StudyCommand, format: Format) -> anyhow::Result<ExitCode> {
    match command {
        StudyCommand::List(args) => list(args, format)?,
        StudyCommand::Show(args) => show(args, format)?,
        StudyCommand::Copy(args) => copy(args, format)?,
        StudyCommand::Delete(args) => delete(args, format)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &StudyListArgs, format: Format) -> anyhow::Result<()> {
    let named = if args.places.is_empty() { &[PathBuf::from("runs")][..] } else { &args.places };
    let mut rows = vec![];
    for name in named {
        for place in places(name).map_err(TrainError::from)? {
            let store = place.open_read_only().map_err(TrainError::from)?;
            rows.push(summary(&place, &*store).map_err(TrainError::from)?);
        }
    }
    match format {
        Format::Json => output::json(&rows),
        Format::Text => {
            let keys = ["study", "searcher", "trials", "limit", "complete", "failed", "running"];
            let text = |row: &Value| -> Vec<String> {
                let cell = |key: &&str| match &row[*key] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                keys.iter().map(cell).collect()
            };
            let head = keys.iter().map(ToString::to_string).collect();
            let table: Vec<Vec<String>> = [head].into_iter().chain(rows.iter().map(text)).collect();
            output::table(&table)
        }
    }
}

/// The studies that a name stands for: one file, the files `*.study` of a directory, those of a database.
fn places(name: &Path) -> Result<Vec<Place>, StoreError> {
    if !name.is_dir() {
        return Place::named(name)?.all();
    }
    let files = std::fs::read_dir(name).map_err(|error| StoreError::Open {
        place: Place::from(name),
        message: error.to_string(),
    })?;
    let files = files.flatten().map(|entry| entry.path());
    let is_study = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "study");
    let mut files: Vec<PathBuf> = files.filter(is_study).collect();
    files.sort();
    Ok(files.iter().map(|file| Place::from(file.as_path())).collect())
}

fn summary(place: &Place, store: &dyn Store) -> Result<Value, StoreError> {
    let result = StudyResult::of(store)?;
    let count = |state: State| {
        let is_so = |trial: &&fixnorm_train::tune::TrialRow| {
            trial.jobs.iter().any(|job| job.state == state)
        };
        result.trials.iter().filter(is_so).count()
    };
    let complete = result.trials.iter().filter(|trial| result.value(trial).is_some()).count();
    Ok(json!({
        "study": place.to_string(),
        "name": result.study.name,
        "searcher": result.study.search.name(),
        "metric": result.study.metric,
        "trials": result.trials.len(),
        "limit": result.study.trials,
        "complete": complete,
        "failed": count(State::Failed),
        "pruned": count(State::Pruned),
        "running": count(State::Running),
        "best": result.best().and_then(|trial| result.value(trial)),
    }))
}

fn show(args: &StudyShowArgs, format: Format) -> anyhow::Result<()> {
    let place = Place::named(&args.study).map_err(TrainError::from)?;
    let store = place.open_read_only().map_err(TrainError::from)?;
    let result = StudyResult::of(&*store).map_err(TrainError::from)?;
    match format {
        Format::Json => {
            let mut shown = summary(&place, &*store).map_err(TrainError::from)?;
            for (key, value) in result.to_json().as_object().into_iter().flatten() {
                shown[key] = value.clone();
            }
            let study = &result.study;
            shown["seeds"] = json!(study.seeds);
            shown["knobs"] = json!(study.search.axes());
            shown["plan"] = json!(study.plan);
            shown["provenance"] = json!(study.provenance);
            output::json(&shown)
        }
        Format::Text => {
            output::line(&format!(
                "{}: {} of {} trials by {}",
                result.study.name,
                result.trials.len(),
                result.study.trials,
                result.study.search.name()
            ))?;
            exec::print(&result)
        }
    }
}

fn copy(args: &StudyCopyArgs, format: Format) -> anyhow::Result<()> {
    let [from, to] = [Place::named(&args.from), Place::named(&args.to)];
    let (from, to) = (from.map_err(TrainError::from)?, to.map_err(TrainError::from)?);
    let store = from.open_read_only().map_err(TrainError::from)?;
    let trials = store.trials().map_err(TrainError::from)?;
    to.import(store.study(), &trials).map_err(TrainError::from)?;
    match format {
        Format::Json => output::json(
            &json!({"from": from.to_string(), "to": to.to_string(), "trials": trials.len()}),
        ),
        Format::Text => output::line(&format!("copied {} trials to {to}", trials.len())),
    }
}

fn delete(args: &StudyDeleteArgs, format: Format) -> anyhow::Result<()> {
    let place = Place::named(&args.study).map_err(TrainError::from)?;
    place.delete(args.force).map_err(TrainError::from)?;
    match format {
        Format::Json => output::json(&json!({"deleted": place.to_string()})),
        Format::Text => output::line(&format!("deleted {place}")),
    }
}

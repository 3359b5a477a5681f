//! A study as an Optuna study, in Optuna's own SQLite schema (12, revision v3.2.0.a), for `optuna-dashboard`,
//! `optuna.load_study` and whatever reads them. Seeds become user attributes, their mean the value.

use std::path::Path;

use rusqlite::{Connection, Transaction, params};
use serde_json::json;

use super::{Store, StoreError, Study, TrialRow};
use crate::search::Outcome;

const SCHEMA: &str = include_str!("optuna.sql");

/// Writes a study to a new file.
///
/// # Errors
/// A file that exists or cannot be written, a store that cannot be read.
pub fn to_optuna(store: &dyn Store, path: &Path) -> Result<(), StoreError> {
    let trials = store.trials()?;
    let failed = |message: String| StoreError::Export { path: path.to_owned(), message };
    if path.exists() {
        return Err(failed("it exists already".to_owned()));
    }
    write(store.study(), &trials, path).map_err(|error| failed(error.to_string()))
}

fn write(study: &Study, trials: &[TrialRow], path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO studies VALUES (1, ?1)", [&study.name])?;
    let direction = if study.metric.minimize { "MINIMIZE" } else { "MAXIMIZE" };
    transaction.execute("INSERT INTO study_directions VALUES (1, ?1, 1, 0)", [direction])?;
    for (key, value) in [("searcher", study.search.name()), ("plan", &study.plan)] {
        transaction.execute(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?1, ?2)",
            params![key, json!(value).to_string()],
        )?;
    }
    for trial in trials {
        write_trial(&transaction, study, trial)?;
    }
    transaction.commit()
}

fn write_trial(transaction: &Transaction, study: &Study, trial: &TrialRow) -> rusqlite::Result<()> {
    let id = trial.number as i64 + 1;
    let outcome = trial.outcome();
    let state = match outcome {
        Outcome::Scored { .. } => "COMPLETE",
        Outcome::Pending => "RUNNING",
        Outcome::Failed if trial.jobs.iter().any(|job| job.state == super::State::Failed) => "FAIL",
        Outcome::Failed | Outcome::Bound { .. } => "PRUNED",
    };
    let start = trial.jobs.iter().filter_map(|job| job.started_ms).min();
    let end = match outcome {
        Outcome::Pending => None,
        _ => trial.jobs.iter().filter_map(|job| job.ended_ms).max(),
    };
    let time = "strftime('%Y-%m-%d %H:%M:%f000', ?/1000.0, 'unixepoch')";
    transaction.execute(
        &format!(
            "INSERT INTO trials VALUES (?1, ?2, 1, ?3, {}, {})",
            time.replace('?', "?4"),
            time.replace('?', "?5")
        ),
        params![id, trial.number as i64, state, start, end],
    )?;
    if let Outcome::Scored { score, .. } = outcome {
        transaction.execute(
            "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?1, 0, ?2, 'FINITE')",
            params![id, study.metric.flip(score)],
        )?;
    }
    for (axis, &x) in study.search.axes().iter().zip(&trial.point) {
        let [low, high, value] = [axis.low, axis.high, x].map(|x| axis.value(x));
        let distribution = json!({
            "name": "FloatDistribution",
            // The value itself may round to just outside.
            "attributes": {"step": null, "low": low.min(value), "high": high.max(value), "log": axis.is_log()},
        });
        transaction.execute(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
             VALUES (?1, ?2, ?3, ?4)",
            params![id, axis.name, value, distribution.to_string()],
        )?;
    }
    for (epoch, value) in mean_curve(trial) {
        transaction.execute(
            "INSERT INTO trial_intermediate_values
             (trial_id, step, intermediate_value, intermediate_value_type) VALUES (?1, ?2, ?3, 'FINITE')",
            params![id, epoch as i64, study.metric.flip(value)],
        )?;
    }
    for job in &trial.jobs {
        let value = json!({
            "state": job.state, (study.metric.name.as_str()): job.val_top1.map(|score| study.metric.flip(score)), "val_loss": job.val_loss,
            "test_top1": job.test_top1, "diverged": job.diverged, "reason": job.reason,
        });
        transaction.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?1, ?2, ?3)",
            params![id, format!("seed {}", job.seed), value.to_string()],
        )?;
    }
    Ok(())
}

/// Validation accuracy by epoch, averaged over the seeds that came so far.
fn mean_curve(trial: &TrialRow) -> Vec<(usize, f64)> {
    let epochs = trial.jobs.iter().map(|job| job.curve.len()).max().unwrap_or(0);
    (0..epochs)
        .filter_map(|epoch| {
            let values: Vec<f64> = trial
                .jobs
                .iter()
                .flat_map(|job| job.curve.iter().filter(|point| point.epoch == epoch))
                .map(|point| point.val_top1)
                .collect();
            (!values.is_empty()).then(|| (epoch, values.iter().sum::<f64>() / values.len() as f64))
        })
        .collect()
}

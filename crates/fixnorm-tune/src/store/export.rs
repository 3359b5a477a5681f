//! A study as CSV, one line a run; `table.rs` and others read it.

use std::fmt::Write;

use super::{Store, StoreError};

/// The runs of a study. Accuracies are empty where there are none.
///
/// # Errors
/// A store that cannot be read.
pub fn to_csv(store: &dyn Store) -> Result<String, StoreError> {
    let [first, second] = &store.study().search.space().axes;
    let mut csv = format!(
        "trial,{},{},seed,val_top1,val_loss,test_top1,diverged,state,cost,seconds,attempts\n",
        first.name, second.name
    );
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for trial in store.trials()? {
        let [x, y] = trial.point.map(f64::exp2);
        for job in &trial.jobs {
            let seconds =
                job.started_ms.zip(job.ended_ms).map(|(start, end)| (end - start) as f64 / 1e3);
            // Writing to a string cannot fail.
            let _ = writeln!(
                csv,
                "{},{x},{y},{},{},{},{},{},{},{},{},{}",
                trial.number,
                job.seed,
                number(job.val_top1),
                number(job.val_loss),
                number(job.test_top1),
                job.diverged,
                job.state.name(),
                job.cost,
                number(seconds),
                job.attempt,
            );
        }
    }
    Ok(csv)
}

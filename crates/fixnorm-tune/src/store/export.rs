//! A study as CSV, one line a run; `table.rs` and others read it.

use std::fmt::Write;

use super::{Store, StoreError, Study};

/// The runs of a study. Accuracies are empty where there are none.
///
/// # Errors
/// A store that cannot be read.
pub fn to_csv(store: &dyn Store) -> Result<String, StoreError> {
    let Study { search, metric, .. } = store.study();
    let names: Vec<&str> = search.axes().iter().map(|axis| axis.name.as_str()).collect();
    let mut csv = format!(
        "trial,{},seed,{},val_loss,test_top1,diverged,state,cost,seconds,attempts\n",
        names.join(","),
        metric.name
    );
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for trial in store.trials()? {
        let values = search.axes().iter().zip(&trial.point);
        let values: Vec<String> = values.map(|(axis, &x)| axis.value(x).to_string()).collect();
        let values = values.join(",");
        for job in &trial.jobs {
            let seconds =
                job.started_ms.zip(job.ended_ms).map(|(start, end)| (end - start) as f64 / 1e3);
            // Writing to a string cannot fail.
            let _ = writeln!(
                csv,
                "{},{values},{},{},{},{},{},{},{},{},{}",
                trial.number,
                job.seed,
                number(job.val_top1.map(|score| metric.flip(score))),
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

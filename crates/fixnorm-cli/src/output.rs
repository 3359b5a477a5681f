//! Results on stdout, and the exit code of an error.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use fixnorm_train::TrainError;
use serde::Serialize;

/// Prints one JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line on stdout. A reader that has closed the pipe, as `head` does, is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Aligns columns by their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A contradiction among the arguments that clap cannot see.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) &'static str);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UsageError {}

/// Exit code of what the user can fix on the command line, in the environment or in the recipe.
pub(crate) const USAGE: u8 = 2;

/// [`USAGE`] for what the user can fix on the command line or in the recipe, 1 for everything else.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(exit_status(error))
}

/// As [`exit_code`], as a number.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    let is_usage = error.chain().any(|cause| {
        cause.is::<UsageError>() || cause.downcast_ref().is_some_and(TrainError::is_usage)
    });
    if is_usage { USAGE } else { 1 }
}

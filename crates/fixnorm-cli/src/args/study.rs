//! Arguments of `study` and of the process that runs a trial's command.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum StudyCommand {
    /// The studies in files, or in a database.
    List(StudyListArgs),
    /// A study's definition, its best trial and all others.
    Show(StudyShowArgs),
    /// Copy a study, between files and databases in either direction.
    Copy(StudyCopyArgs),
    /// Delete a study; its run directories stay.
    Delete(StudyDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StudyListArgs {
    /// Files of studies, directories of them, or URLs of databases (default: runs).
    #[arg(value_name = "FILE|DIR|URL")]
    pub(crate) places: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StudyShowArgs {
    /// The study.
    #[arg(value_name = "FILE|URL")]
    pub(crate) study: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StudyCopyArgs {
    /// The study.
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// Where it goes: no study may be there.
    #[arg(value_name = "TO")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StudyDeleteArgs {
    /// The study.
    #[arg(value_name = "FILE|URL")]
    pub(crate) study: PathBuf,
    /// Also while workers have jobs of it.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Runs a trial's command for a worker and ends it with the worker.
#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// Seconds until the command is ended.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<f64>,
    /// Log of stdout, log of stderr, program, arguments.
    #[arg(last = true, required = true, num_args = 3.., value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

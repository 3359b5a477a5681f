//! Arguments of `data`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use fixnorm_train::data::fetch::REMOTES;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Decode every image: bad ones, sizes, classes, channel statistics.
    Check(DataCheckArgs),
    /// Download a data set, check it and unpack it.
    Fetch(DataFetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DataCheckArgs {
    /// Data, as for `train`.
    #[arg(value_name = "DATA")]
    pub(crate) data: String,
}

#[derive(Debug, Args)]
pub(crate) struct DataFetchArgs {
    /// The data set.
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(REMOTES.iter().map(|r| r.name)))]
    pub(crate) name: String,
    /// Directory to write; by default NAME in FIXNORM_DATA or in data, where `--data NAME` finds it.
    #[arg(long, visible_alias = "output", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Another address of the same files, without their names.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

//! What is understood of a data set's names, without a look into its images:
//! `cargo run --release -p fixnorm-data --example understood -- folder:DIR [eval CLASS,CLASS,…]`

use std::process::ExitCode;

use fixnorm_data::{DataError, DataSet, DataSpec, LoadOptions, Summary};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match understood(&arguments) {
        Ok(summary) => {
            println!("{summary}");
            summary.warnings.iter().for_each(|warning| println!("warning: {warning}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn understood(arguments: &[String]) -> Result<Summary, DataError> {
    let spec = arguments.first().map_or("fashion-mnist-mini", String::as_str);
    let spec: DataSpec = spec.parse()?;
    let Some(classes) = arguments.get(2) else { return Ok(spec.load()?.summary) };
    let classes: Vec<String> = classes.split(',').map(str::to_owned).collect();
    let options = LoadOptions::default();
    Ok(DataSet::open_for_evaluation(&spec, None, &classes, &options)?.summary)
}

//! `fixnorm report`: what runs, dissections and studies came to, as one HTML page that needs no network.
//!
//! ```text
//! plot       curves, points, bars and heat maps as SVG, each with its table    plot.rs
//! forest     estimates with their intervals, a row each                        forest.rs
//! page       the page around them, with its style and script                   page.rs
//! sections   which plots a run and a dissection have                           sections.rs
//! study      which plots a study of the tuner has                              study.rs
//! ```

mod forest;
mod page;
mod plot;
mod sections;
mod study;

use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::analysis::dissect::Dissection;
use crate::files::write_atomic;
use crate::run_dir::History;
use crate::tune::Sqlite;

use page::Page;

/// Writes the report of run directories, of directories of dissections and of studies' files to `file`, and where
/// `plots` is given every plot as SVG and CSV into it.
///
/// # Errors
/// Sources that are none of these, logs that do not parse, a file that cannot be written.
pub fn write(sources: &[PathBuf], file: &Path, plots: Option<&Path>) -> Result<(), TrainError> {
    let mut page = Page::new();
    let (mut runs, mut dissections) = (vec![], vec![]);
    for source in sources {
        if source.is_file() {
            study::study(&mut page, source, &Sqlite::open(source)?)?;
            continue;
        }
        match Dissection::read(source)? {
            Some(dissection) => dissections.push(dissection),
            None => runs.push(History::read(source)?),
        }
    }
    for dissection in &dissections {
        sections::dissection(&mut page, dissection)?;
    }
    for run in &runs {
        sections::run(&mut page, run, &run.root.display().to_string());
    }
    let names: Vec<String> = sources.iter().map(|source| source.display().to_string()).collect();
    write_atomic(file, page.html(&format!("fixnorm: {}", names.join(", "))).as_bytes())?;
    let Some(plots) = plots else { return Ok(()) };
    std::fs::create_dir_all(plots).map_err(TrainError::io("create", plots))?;
    for (number, figure) in page.figures().iter().enumerate() {
        let name = format!("{:02}-{}", number + 1, figure.file_name());
        write_atomic(&plots.join(format!("{name}.svg")), figure.svg_file().as_bytes())?;
        write_atomic(&plots.join(format!("{name}.csv")), figure.csv().as_bytes())?;
    }
    Ok(())
}

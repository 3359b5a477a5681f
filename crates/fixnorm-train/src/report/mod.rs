//! `fixnorm report`: runs, dissections and studies as one HTML page that needs no network.
//!
//! ```text
//! sections  runs.rs (differences.rs, outcome.rs, curves.rs, layers.rs, distances.rs), dissection.rs, study.rs
//! drawings  plot.rs, heat_map.rs, forest.rs, of marks.rs, legend.rs, scale.rs, frame.rs, svg.rs
//! text      names.rs, number.rs
//! page      page.rs, figure.rs, style.rs; page.css, plots.css, page.js
//! ```

mod command_study;
mod curves;
mod differences;
mod dissection;
mod distances;
mod figure;
mod forest;
mod frame;
mod heat_map;
mod layers;
mod legend;
mod marks;
mod names;
mod number;
mod outcome;
mod page;
mod plot;
mod runs;
mod scale;
mod study;
mod style;
mod svg;

use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::analysis::dissect::Dissection;
use crate::files::write_atomic;
use crate::run_dir::History;
use crate::tune::Place;
use crate::tune::exec::CommandPlan;

use page::Page;

/// Writes the report of `sources` to `file`, and where `plots` is given every figure as SVG and CSV into it. Sources
/// are run directories, directories of dissections and files of studies; all runs share one section.
///
/// # Errors
/// Sources that are none of these, logs that do not parse, a file that cannot be written.
pub fn write(sources: &[PathBuf], file: &Path, plots: Option<&Path>) -> Result<(), TrainError> {
    let mut page = Page::new();
    let (mut runs, mut dissections, mut studies) = (vec![], vec![], vec![]);
    for source in sources {
        let place = Place::named(source)?;
        if source.is_file() || matches!(place, Place::Database(_)) {
            let store = place.open_read_only()?;
            // As it is shown: without a password.
            studies.push((PathBuf::from(place.to_string()), store));
        } else if let Some(dissection) = Dissection::read(source)? {
            dissections.push((source, dissection));
        } else {
            runs.push((source, History::read(source)?));
        }
    }
    if !runs.is_empty() {
        let paths: Vec<String> = runs.iter().map(|(source, _)| path_name(source)).collect();
        let names = short_names(&paths);
        let heading = match &names[..] {
            [name] => format!("Run {name}"),
            names => format!("{} runs", names.len()),
        };
        page.heading(&heading);
        let runs = names.into_iter().zip(runs.iter().map(|(_, run)| run));
        runs::runs(&mut page, &runs.collect::<Vec<_>>());
    }
    for (source, dissection) in &dissections {
        dissection::dissection(&mut page, source, dissection)?;
    }
    for (source, study) in &studies {
        if CommandPlan::from_toml(&study.study().plan).is_none() {
            study::study(&mut page, source, &**study)?;
        } else {
            command_study::command_study(&mut page, source, &**study)?;
        }
    }
    save_figures(&page, plots)?;
    write_atomic(file, page.html(&title(sources)).as_bytes())
}

/// Names that differ where the paths do, of a length that fits into a heading or the head of a table.
fn short_names(paths: &[String]) -> Vec<String> {
    const MOST: usize = 40;
    let names = names::of_paths(paths);
    names::shortened(&names.iter().map(String::as_str).collect::<Vec<_>>(), MOST)
}

/// The path as text; that of `.` or `..` in full, since it has no name.
fn path_name(path: &Path) -> String {
    let full = path.file_name().is_none().then(|| path.canonicalize().ok()).flatten();
    full.as_deref().unwrap_or(path).display().to_string()
}

/// Sources by their short names, as many as fit into a title.
fn title(sources: &[PathBuf]) -> String {
    const MOST: usize = 4;
    let paths: Vec<String> = sources.iter().map(|source| path_name(source)).collect();
    let names = short_names(&paths);
    let more = names.len().saturating_sub(MOST);
    let named = names[..names.len().min(MOST)].join(", ");
    if more == 0 {
        format!("fixnorm: {named}")
    } else {
        format!("fixnorm: {named} and {more} more")
    }
}

fn save_figures(page: &Page, plots: Option<&Path>) -> Result<(), TrainError> {
    let Some(plots) = plots else { return Ok(()) };
    std::fs::create_dir_all(plots).map_err(TrainError::io("create", plots))?;
    for (number, figure) in page.saved().iter().enumerate() {
        let name = format!("{:02}-{}", number + 1, figure.name);
        write_atomic(&plots.join(format!("{name}.svg")), figure.svg.as_bytes())?;
        write_atomic(&plots.join(format!("{name}.csv")), figure.csv.as_bytes())?;
    }
    Ok(())
}

//! `fixnorm data`.

use std::process::ExitCode;

use anyhow::Context;
use fixnorm_train::TrainError;
use fixnorm_train::data::check::{Range, Report};
use fixnorm_train::data::fetch::Remote;
use fixnorm_train::data::{DataSpec, check as check_pictures};
use fixnorm_train::files::path_text;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{DataCheckArgs, DataFetchArgs, Format};
use crate::output;
use crate::progress::loading;

pub(crate) fn check(args: &DataCheckArgs, format: Format) -> anyhow::Result<ExitCode> {
    let spec: DataSpec = args.data.parse().map_err(TrainError::from)?;
    let data = spec.load_with(&loading()).map_err(TrainError::from)?;
    // Hidden by itself where stderr is no terminal.
    let bar = bar("{bar:28} {pos}/{len} images  {per_sec}  {eta} left");
    let report = check_pictures(&data, &|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => print(&report)?,
    }
    Ok(if report.bad() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) -> anyhow::Result<()> {
    output::line(&report.understood)?;
    for warning in &report.warnings {
        output::line(&format!("warning: {warning}"))?;
    }
    output::line("")?;
    for part in &report.parts {
        for bad in &part.bad {
            output::line(&format!("bad  {}: {}", bad.name.display(), bad.reason))?;
        }
    }
    let size = |range: Option<Range>| match range {
        Some(Range { min, median, max }) => format!("{min} / {median} / {max}"),
        None => "-".to_owned(),
    };
    let head = ["part", "images", "bad", "width min / median / max", "height min / median / max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.parts.iter().map(|part| {
        let (images, bad) = (part.images.to_string(), part.bad.len().to_string());
        vec![part.part.to_owned(), images, bad, size(part.width), size(part.height)]
    }));
    output::table(&rows)?;
    output::line("")?;
    let mut rows = vec![vec!["class".to_owned()]];
    rows[0].extend(report.parts.iter().map(|part| part.part.to_owned()));
    rows.extend(report.classes.iter().map(|class| {
        let counts = class.images.iter().map(usize::to_string);
        std::iter::once(class.name.clone()).chain(counts).collect()
    }));
    output::table(&rows)?;
    let list = |numbers: &[f64]| {
        numbers.iter().map(|number| format!("{number:.4}")).collect::<Vec<_>>().join(", ")
    };
    output::line("")?;
    output::line(&format!("mean  {}", list(&report.mean)))?;
    output::line(&format!("std   {}", list(&report.std)))
}

pub(crate) fn fetch(args: &DataFetchArgs, format: Format) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.name).context("clap knows the names")?;
    let out = args.out.clone().unwrap_or_else(|| remote.own_place());
    let bar = bar("{msg}  {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    remote.fetch(&out, args.url.as_deref(), &mut |name, done, all| {
        bar.set_message(name.to_owned());
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let spec = match args.out {
        None => args.name.clone(),
        Some(_) => format!("{}:{}", args.name, out.display()),
    };
    match format {
        Format::Json => output::json(&json!({"data": spec, "path": path_text(&out)}))?,
        Format::Text => {
            output::line(&format!("{} is in {}", args.name, out.display()))?;
            output::line(&format!("next  fixnorm train --data {spec}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

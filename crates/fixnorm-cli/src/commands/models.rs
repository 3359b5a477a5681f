//! `fixnorm models`.

use std::process::ExitCode;

use fixnorm_train::models;
use serde_json::json;

use crate::args::Format;
use crate::output;

pub(crate) fn run(format: Format) -> anyhow::Result<ExitCode> {
    let counted: Vec<_> = models().iter().map(|spec| (spec, spec.count())).collect();
    if format == Format::Json {
        let rows = counted.iter().map(|(spec, (params, macs))| {
            json!({"name": spec.name, "params": params, "macs": macs, "resolution": spec.resolution})
        });
        output::json(&rows.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ["model", "parameters", "MACs", "resolution", "channels", "classes"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (spec, (params, macs)) in counted {
        rows.push(vec![
            spec.name.to_owned(),
            params.to_string(),
            macs.to_string(),
            format!("{0}x{0}", spec.resolution),
            spec.input.channels.to_string(),
            spec.input.classes.to_string(),
        ]);
    }
    output::table(&rows)?;
    Ok(ExitCode::SUCCESS)
}

//! `fixnorm bench`.

use std::process::ExitCode;

use fixnorm_train::ModelSpec;
use fixnorm_train::bench::{
    self, DataBench, KernelReport, OptimBench, StepBench, StepReport, use_threads,
};

use crate::args::{BenchDataArgs, BenchOptimArgs, BenchStepArgs, Format};
use crate::output;

pub(crate) fn step(args: &BenchStepArgs, format: Format) -> anyhow::Result<ExitCode> {
    if let Some(threads) = args.threads {
        use_threads(threads as usize)?;
    }
    let spec = ModelSpec::find(&args.model).map_err(fixnorm_train::TrainError::from)?;
    let report = bench::step(&StepBench {
        device: args.device.device.clone(),
        model: args.model.clone(),
        batch: args.batch as usize,
        resolution: args.res.map_or(spec.resolution, |res| res as usize),
        channels: args.channels.map(|channels| channels as usize),
        precision: args.precision,
        recompute: args.recompute,
        inference: args.inference,
        steps: args.steps as usize,
        profile: args.profile,
    })?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => print(&report)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn optim(args: &BenchOptimArgs, format: Format) -> anyhow::Result<ExitCode> {
    if let Some(threads) = args.threads {
        use_threads(threads as usize)?;
    }
    let report =
        bench::optim(&OptimBench { model: args.model.clone(), steps: args.steps as usize })?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => {
            let [fastest, slowest] = report.step_ms_range;
            output::line(&format!(
                "{}, {} parameters: {:.2} ms a step (median of {}, {fastest:.2} to {slowest:.2}), {:.2}x a copy of \
                 as many bytes ({:.2} ms, {:.1} GB/s)",
                report.model,
                report.parameters,
                report.step_ms,
                report.steps,
                report.over_copy,
                report.copy_ms,
                report.bytes as f64 / report.copy_ms / 1e6,
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn data(args: &BenchDataArgs, format: Format) -> anyhow::Result<ExitCode> {
    let report = bench::data(&DataBench {
        data: args.data.clone(),
        transform: bench::pipeline(&args.pipeline)?,
        batch: args.batch as usize,
        resolution: args.res.map(|res| res as usize),
        workers: args.workers as usize,
        prefetch: args.prefetch as usize,
        cache: args.cache.clone(),
        seconds: args.seconds,
    })?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => {
            let [height, width, _] = report.shape;
            let memory =
                report.peak_rss_mib.map_or_else(String::new, |mib| format!(", peak {mib} MiB"));
            output::line(&format!(
                "{}: {:.1} images/s of {height} x {width} ({} in {:.1} s, {} workers{memory})",
                report.data,
                report.images_per_second,
                report.images,
                report.seconds,
                report.workers,
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &StepReport) -> anyhow::Result<()> {
    let [fastest, slowest] = report.step_ms_range;
    let memory = report.peak_rss_mib.map_or_else(String::new, |mib| format!(", peak {mib} MiB"));
    output::line(&format!(
        "{} batch {} at {} px on {}: {:.1} images/s (median of {} steps, {:.1} ms, {fastest:.1} to {slowest:.1}{memory})",
        report.model,
        report.batch,
        report.resolution,
        report.device,
        report.images_per_second,
        report.steps,
        report.step_ms,
    ))?;
    if let (Some(launches), Some(kernels), Some(host)) =
        (report.launches, report.first_step_kernels, report.host_ms)
    {
        let seconds = report.first_step_ms / 1e3;
        output::line(&format!(
            "{launches} launches a step, issued by the host within {host:.1} ms; first step after {seconds:.1} s, with {kernels} \
             different kernels"
        ))?;
    }
    if !report.kernels.is_empty() {
        return print_kernels(&report.kernels);
    }
    let Some(ceiling) = report.ceiling else { return Ok(()) };
    output::line(&format!(
        "this machine: {:.0} GFLOP/s, {:.1} GB/s ({} threads, {})",
        ceiling.gflops, ceiling.gbytes, report.threads, report.isa
    ))?;
    let head = ["operation", "ms", "share", "GFLOP/s", "GB/s", "over limit"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut rest = 1.0;
    for op in &report.profile {
        rest -= op.share;
        rows.push(vec![
            op.name.clone(),
            format!("{:.2}", op.ms),
            format!("{:.1}%", 100.0 * op.share),
            format!("{:.0}", op.gflops),
            format!("{:.1}", op.gbytes),
            format!("{:.1}x", op.over_limit),
        ]);
    }
    let ms = rest * report.step_ms;
    rows.push(vec![
        "everything else".to_owned(),
        format!("{ms:.2}"),
        format!("{:.1}%", 100.0 * rest),
    ]);
    output::table(&rows)
}

fn print_kernels(kernels: &[KernelReport]) -> anyhow::Result<()> {
    let total: f64 = kernels.iter().map(|kernel| kernel.ms).sum();
    let mut rows = vec![["kernel", "launches", "ms", "share"].map(str::to_owned).to_vec()];
    rows.extend(kernels.iter().map(|kernel| {
        let share = 100.0 * kernel.ms / total;
        let launches = kernel.launches.to_string();
        vec![kernel.name.clone(), launches, format!("{:.3}", kernel.ms), format!("{share:.1}%")]
    }));
    output::table(&rows)
}

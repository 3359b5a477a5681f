//! `fixnorm train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use fixnorm_train::data::{DataSet, LoadOptions};
use fixnorm_train::run_dir::{Failure, RunDir, RunFiles};
use fixnorm_train::session::estimate::estimate;
use fixnorm_train::session::{prepare, resume, start, start_numbered, take_part};
use fixnorm_train::{
    Devices, Outcome, Plan, Ranks, Recipe, RecipeBuilder, Stop, Summary, TrainError,
};
use serde_json::json;
use signal_hook::consts::SIGTERM;

use crate::args::{Format, TrainArgs};
use crate::output::{self, UsageError};
use crate::progress::{self, Progress};
use crate::run::{interrupted, made_by, recipe, stop_on_signals, with_model_and_data};

pub(crate) fn run(args: &TrainArgs, format: Format) -> anyhow::Result<ExitCode> {
    let resumed = args.resumed().map_err(UsageError)?;
    // A worker's trial is alone, even if the worker is one of several processes.
    let ranks = if args.dry_run || args.while_stdin {
        Ranks::default()
    } else {
        Ranks::join(|name| std::env::var(name).ok()).map_err(TrainError::from)?
    };
    let _end = EndOnPanic(&ranks);
    let done = train(args, resumed, &ranks, format);
    if let (Err(error), Some(out), true) = (&done, args.out(), args.while_stdin) {
        save_failure(error, out);
    }
    if let Err(error) = &done
        && ranks.count() > 1
    {
        eprintln!("error: rank {} of {}: {error}", ranks.rank(), ranks.count());
        ranks.abort(output::exit_status(error));
    }
    done
}

/// Ends all ranks if this one panics: the others would wait for it.
struct EndOnPanic<'a>(&'a Ranks);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort(101);
        }
    }
}

fn train(
    args: &TrainArgs,
    resumed: Option<&Path>,
    ranks: &Ranks,
    format: Format,
) -> anyhow::Result<ExitCode> {
    if let (None, Some(out), true, false) = (resumed, args.out(), ranks.leads(), args.dry_run) {
        RunDir::check_new(out)?;
    }
    let mut builder = RecipeBuilder::new();
    let mut device = Devices::default();
    if let Some(dir) = resumed {
        // A resumed run has its recipe from its plan, so that flags need not be repeated.
        let saved = RunFiles::new(dir).plan()?;
        builder = builder.text(&saved.recipe.to_toml(), "plan").map_err(TrainError::from)?;
        device = saved.made_by.device;
    }
    let recipe = choices(args, builder)?;
    let device = args.device.device.as_ref().unwrap_or(&device);
    let loading = if ranks.leads() { progress::loading() } else { LoadOptions::default() };
    let resolved = Plan::resolve_with(recipe, made_by(device), &loading);
    let (plan, data) = resolved.inspect_err(|error| {
        if let (Some(_), None, TrainError::Data(_)) = (resumed, &args.data, error) {
            eprintln!("if the data of the run lie elsewhere now, name them with --data");
        }
    })?;
    if args.dry_run {
        dry_run(&plan, &data, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = stop_on_signals()?;
    if args.while_stdin {
        stop_after_stdin(&stop);
    }
    if !ranks.leads() {
        take_part(&plan, &data, ranks, &stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress::with_data(&data.summary);
    let outcome = match (resumed, args.out()) {
        (Some(dir), _) => resume(&plan, &data, dir, &mut progress, ranks, &stop)?,
        (None, Some(out)) => start(&plan, &data, out, &mut progress, ranks, &stop)?,
        (None, None) => {
            let prefix = numbered_directory(&plan);
            start_numbered(&plan, &data, &prefix, &mut progress, ranks, &stop)?
        }
    };
    report(&outcome, format, &stop)
}

/// Saves an error from before the run began; a run that has begun saves its own, and an existing run may be another
/// process's.
fn save_failure(error: &anyhow::Error, out: &Path) {
    if let Some(error) = error.downcast_ref::<TrainError>()
        && !RunFiles::new(out).has_plan()
    {
        // Best effort: the error is printed, too.
        let _ = Failure::of(error).save(out);
    }
}

/// The recipe that the flags describe.
fn choices(args: &TrainArgs, builder: RecipeBuilder) -> Result<Recipe, TrainError> {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let flags = |builder| {
        let mut builder =
            with_model_and_data(builder, args.model.as_deref(), args.data.as_deref())?;
        if let Some(init) = &args.init {
            builder = builder.set("init", init.as_str())?;
        }
        if args.allow_partial {
            builder = builder.set("allow_partial", true)?;
        }
        let counts = [
            ("train.epochs", args.epochs.map(|epochs| epochs as u64)),
            ("train.batch_size", args.batch_size.map(|size| size as u64)),
            ("train.seed", args.seed),
        ];
        for (key, count) in counts {
            if let Some(count) = count {
                builder = builder.set(key, whole(count))?;
            }
        }
        if let Some(lr) = args.lr {
            builder = builder.set("optimizer.lr", lr)?;
        }
        if let Some(angle) = args.angle {
            builder = builder.set("optimizer.lr", angle)?.set("optimizer.step_rule", "angular")?;
        }
        Ok(builder)
    };
    recipe(builder, &args.recipe, flags)
}

/// Asks the run to stop when standard input ends, as it does when the program at its other end does.
fn stop_after_stdin(stop: &Stop) {
    let stop = stop.clone();
    std::thread::spawn(move || {
        // An input that cannot be read has ended too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        stop.store(SIGTERM as usize, Ordering::Relaxed);
    });
}

/// Where runs without --out go, less the number.
fn numbered_directory(plan: &Plan) -> PathBuf {
    let data = plan.recipe.data.split([':', '?']).next().unwrap_or_default();
    PathBuf::from(format!("runs/{}-{data}", plan.recipe.model))
}

fn report(outcome: &Outcome, format: Format, stop: &Stop) -> anyhow::Result<ExitCode> {
    match outcome {
        Outcome::Finished(summary) => {
            match format {
                Format::Json => output::json(summary)?,
                Format::Text => text(summary)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted { step, steps, out } => {
            eprintln!("stopped and saved after step {step} of {steps}; resume with:");
            eprintln!("  fixnorm train --resume --out {}", out.display());
            Ok(interrupted(stop))
        }
    }
}

fn text(summary: &Summary) -> anyhow::Result<()> {
    let test = summary.test_top1.map(|top1| format!("  test top-1 {top1:.4}")).unwrap_or_default();
    let out = summary.out.display();
    output::line(&format!(
        "val top-1 {:.4}  top-5 {:.4}  loss {:.4}{test}  ({} steps, {:.0} s, {:.0} images/s)",
        summary.val_top1,
        summary.val_top5,
        summary.val_loss,
        summary.steps,
        summary.seconds,
        summary.images_per_second
    ))?;
    if summary.bad_pictures > 0 {
        output::line(&format!(
            "bad   {} images could not be read and were skipped: {out}/bad_pictures.jsonl",
            summary.bad_pictures
        ))?;
    }
    output::line(&format!("run   {out}"))?;
    output::line("next  see what the norms did, or use the weights:")?;
    output::line(&format!("  fixnorm inspect --weights {out}"))?;
    output::line(&format!("  fixnorm predict --weights {out} IMAGE.png"))?;
    output::line(&format!("  tensorboard --logdir {out}"))
}

fn dry_run(plan: &Plan, data: &DataSet, format: Format) -> anyhow::Result<()> {
    let prepared = prepare(plan, data)?;
    let roles = prepared.roles.clone();
    if let Some(initialized) = &prepared.initialized {
        eprintln!("{}", progress::start_from(initialized));
    }
    let estimate = estimate(plan, data, prepared)?;
    if format == Format::Json {
        let parameters = roles.params;
        return output::json(
            &json!({"plan": plan, "parameters": parameters, "estimate": estimate}),
        );
    }
    output::line(plan.to_toml().trim_end())?;
    output::line("")?;
    output::line(roles.to_string().trim_end())?;
    output::line("")?;
    output::line(&format!(
        "estimate  {} and {} MiB on disk, from {} steps of {:.0} ms ({:.0} images/s)",
        duration(estimate.seconds),
        estimate.bytes.div_ceil(1 << 20),
        estimate.steps,
        estimate.step_ms,
        estimate.images_per_second
    ))
}

/// In the two largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} days {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_two_units() {
        let all = [59.2, 61.0, 3599.0, 7260.0, 86_399.0, 180_000.0].map(duration);
        assert_eq!(
            all,
            ["1 min 0 s", "1 min 1 s", "59 min 59 s", "2 h 1 min", "23 h 59 min", "2 days 2 h"]
        );
    }
}

//! A run on the terminal: a progress bar where stderr is one, a line an epoch everywhere.

use std::io::IsTerminal;
use std::time::Instant;

use fixnorm_train::data::{LoadOptions, Summary};
use fixnorm_train::run_dir::event::{EpochRecord, Initialized, Start, StepRecord, Validation};
use fixnorm_train::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Share of an epoch spent waiting for images above which it is shown.
const SLOW: f64 = 0.1;

/// Shows a run's events on stderr.
pub(crate) struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
    epochs: usize,
    steps_per_epoch: usize,
    /// When this session began.
    since: Instant,
    /// What was understood of the data, in lines.
    data: Vec<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            on_terminal: std::io::stderr().is_terminal(),
            epochs: 0,
            steps_per_epoch: 0,
            since: Instant::now(),
            data: vec![],
        }
    }

    /// With the lines that describe the data, printed before the run.
    pub(crate) fn with_data(data: &Summary) -> Self {
        Self { data: understood(data), ..Self::new() }
    }

    /// Prints a line above the bar.
    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn begin(&mut self, epochs: usize, steps_per_epoch: usize, step: usize) {
        (self.epochs, self.steps_per_epoch) = (epochs, steps_per_epoch);
        self.since = Instant::now();
        if !self.on_terminal {
            return;
        }
        let bar = ProgressBar::with_draw_target(
            Some((epochs * steps_per_epoch) as u64),
            ProgressDrawTarget::stderr(),
        );
        let template = "{bar:28} {pos}/{len} steps  {msg}  {eta} left";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_position(step as u64);
        bar.reset_eta();
        self.bar = bar;
    }
}

/// Loads a data set, with a line on stderr where an index has to be made first.
pub(crate) fn loading() -> LoadOptions<'static> {
    LoadOptions { progress: &indexing, ..LoadOptions::default() }
}

/// A line at the start and at the end: shards are few, and only their first use needs it.
fn indexing(done: usize, of: usize) {
    match done {
        0 => eprintln!("indexing {of} files, once"),
        done if done == of => eprintln!("indexed {of} files"),
        _ => {}
    }
}

/// What was understood of a data set: a line, and one for each warning.
pub(crate) fn understood(data: &Summary) -> Vec<String> {
    let warnings = data.warnings.iter().map(|warning| format!("warning: {warning}"));
    std::iter::once(data.to_string()).chain(warnings).collect()
}

/// The weights that a run starts from, and the tensors they did not provide.
pub(crate) fn start_from(initialized: &Initialized) -> String {
    let Initialized { weights, new_head, classes, missing, misshapen, unexpected } = initialized;
    let mut text = format!("starts from {}", weights.display());
    if *new_head {
        text += "; the final layer is new";
    }
    if let Some(classes) = classes {
        text += &format!("; {classes}");
    }
    for (kind, names) in
        [("missing", missing), ("of another shape", misshapen), ("not used", unexpected)]
    {
        if !names.is_empty() {
            text += &format!("; {kind}: {}", names.join(", "));
        }
    }
    text
}

impl Observer for Progress {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Start(Start {
                model,
                data,
                params,
                scale_invariant,
                weights,
                knobs,
                epochs,
                steps_per_epoch,
                step,
                out,
            }) => {
                for line in std::mem::take(&mut self.data) {
                    self.line(&line);
                }
                let from = match step {
                    0 => String::new(),
                    step => format!(", from step {step}"),
                };
                self.line(&format!(
                    "{model} ({params} parameters, {scale_invariant} of {weights} weights scale-invariant) on {data}, {knobs}, {epochs} epochs of {steps_per_epoch} steps{from}, into {}",
                    out.display()
                ));
                self.begin(*epochs, *steps_per_epoch, *step);
            }
            Event::Changed { changes } => changes.iter().for_each(|change| self.line(change)),
            Event::Init(initialized) => self.line(&start_from(initialized)),
            Event::Step(StepRecord { step, epoch, running: Some(running), .. }) => {
                self.bar.set_position(*step as u64 + 1);
                self.bar.set_message(format!(
                    "epoch {}/{}  loss {:.3}  top-1 {:.3}  {:.0} images/s",
                    epoch + 1,
                    self.epochs,
                    running.loss,
                    running.top1,
                    running.images_per_second,
                ));
            }
            Event::Epoch(EpochRecord {
                epoch,
                train_loss,
                train_top1,
                validation,
                images_per_second,
                data_wait,
                ..
            }) => {
                let waited = match *data_wait {
                    share if share < SLOW => String::new(),
                    share => format!("  ({:.0} % of it waiting for images)", 100.0 * share),
                };
                let validated = match validation {
                    Some(Validation { val_loss, val_top1, val_top5 }) => format!(
                        "  val loss {val_loss:.4}  top-1 {val_top1:.4}  top-5 {val_top5:.4}"
                    ),
                    None => String::new(),
                };
                self.line(&format!(
                    "epoch {:>3}/{}  train loss {train_loss:.4}  top-1 {train_top1:.4}{validated}  \
                     {images_per_second:.0} images/s{waited}  {}s",
                    epoch + 1,
                    self.epochs,
                    self.since.elapsed().as_secs()
                ));
            }
            Event::BadPictures { pictures, .. } => {
                for bad in pictures {
                    self.line(&format!("skipped {}: {}", bad.name.display(), bad.reason));
                }
            }
            Event::Interrupted { .. } | Event::End(_) => self.bar.finish_and_clear(),
            _ => {}
        }
    }
}

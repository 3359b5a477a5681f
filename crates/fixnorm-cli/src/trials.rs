//! A study on the terminal: a table that is redrawn where stderr is one, a line a trial everywhere else.

use std::io::IsTerminal;

use fixnorm_train::tune::{Knobs, Outcome, Start, State, TrialRow, TuneObserver, Tuned};

use crate::output;

/// Shows a study's trials on stderr.
pub(crate) struct TrialTable {
    knobs: Knobs,
    epochs: usize,
    on_terminal: bool,
    /// Lines on the screen that the next table replaces.
    drawn: usize,
    /// Trials whose line was printed.
    printed: Vec<usize>,
}

/// Rows of the live table; the trials before them have scrolled away.
const ROWS: usize = 20;

impl TrialTable {
    pub(crate) fn new(knobs: Knobs, epochs: usize) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { knobs, epochs, on_terminal, drawn: 0, printed: vec![] }
    }

    fn redraw(&mut self, trials: &[TrialRow]) {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up, and clear to the end of the screen.
            text += &format!("\x1b[{}A\x1b[J", self.drawn);
        }
        let shown = &trials[trials.len().saturating_sub(ROWS)..];
        text += &header(self.knobs);
        for trial in shown {
            text += &format!("\n{}", row(trial, self.epochs));
        }
        eprintln!("{text}");
        self.drawn = shown.len() + 1;
    }

    fn print_finished(&mut self, trials: &[TrialRow]) {
        for trial in trials {
            let is_over = trial.jobs.iter().all(|job| !job.state.is_open());
            if is_over && !self.printed.contains(&trial.number) {
                if self.printed.is_empty() {
                    eprintln!("{}", header(self.knobs));
                }
                eprintln!("{}", row(trial, self.epochs));
                self.printed.push(trial.number);
            }
        }
    }
}

impl TuneObserver for TrialTable {
    fn changed(&mut self, trials: &[TrialRow]) {
        if self.on_terminal {
            self.redraw(trials);
        } else {
            self.print_finished(trials);
        }
    }
}

fn header(knobs: Knobs) -> String {
    let [first, second] = knobs.names();
    format!("{:>5}  {first:>10}  {second:>10}  {:>9}  {:>7}  runs", "trial", "val top-1", "std")
}

fn row(trial: &TrialRow, epochs: usize) -> String {
    let [x, y] = trial.told().point.map(f64::exp2);
    let (score, std) = match trial.told().outcome {
        Outcome::Scored { score, std, .. } => {
            (format!("{score:.4}"), std.map_or_else(|| "-".to_owned(), |std| format!("{std:.4}")))
        }
        _ => ("-".to_owned(), "-".to_owned()),
    };
    let runs = trial.jobs.iter().map(|job| match job.state {
        State::Running => format!("{}/{epochs}", job.curve.len()),
        State::Failed if job.diverged => "diverged".to_owned(),
        state => state.name().to_owned(),
    });
    let runs: Vec<String> = runs.collect();
    format!("{:>5}  {x:>10.5}  {y:>10.5}  {score:>9}  {std:>7}  {}", trial.number, runs.join(" "))
}

/// The start of a search, and the measurements behind it.
pub(crate) fn start_line(start: &Start, knobs: Knobs) -> String {
    let second = knobs.names()[1];
    let at = start.sweep.iter().find(|step| step.lr >= start.lr);
    let update = at.map_or(f64::NAN, |step| step.angular_update);
    format!(
        "start: lr {:.4} (probe of {} steps; weights turn by {update:.4} a step there), {second} {:.4} (features of \
         norm {:.3})",
        start.lr,
        start.sweep.len(),
        start.second,
        start.feature_norm
    )
}

/// The choice and how sure it is.
pub(crate) fn print(tuned: &Tuned) -> anyhow::Result<()> {
    let (Some((values, _)), Some(choice)) = (tuned.best(), &tuned.choice) else {
        return output::line("no trial has a score");
    };
    let [first, second] = tuned.knobs.names();
    let (top1, runs) = tuned.best_mean(|job| job.val_top1).unwrap_or((f64::NAN, 0));
    let runs = if runs > 1 { format!(", mean of {runs} seeds") } else { String::new() };
    let noise = if choice.noise_measured {
        "measured between seeds"
    } else {
        "assumed; more seeds measure it"
    };
    output::line(&format!(
        "best  {first} {:.5}  {second} {:.5}  val top-1 {top1:.4}  (trial {}{runs})",
        values[0], values[1], choice.trial
    ))?;
    output::line(&format!(
        "      {:.4} ± {:.4} by all trials together; noise of a seed {:.4} ({noise})",
        choice.score.mean, choice.score.std, choice.noise
    ))?;
    let [x, y] = choice.optimum.map(f64::exp2);
    let octaves = choice.optimum_std.map(|std| match std {
        Some(std) => format!("± {std:.2} octaves"),
        None => "with no bend".to_owned(),
    });
    output::line(&format!(
        "fit   optimum at {first} {x:.5} ({}), {second} {y:.5} ({}): {:.4} ± {:.4}",
        octaves[0], octaves[1], choice.optimum_score.mean, choice.optimum_score.std
    ))?;
    if tuned.is_clamped {
        output::line("      an estimate went beyond 1, the largest accuracy, and is given as 1")?;
    }
    let close: Vec<String> = choice.within_noise.iter().map(ToString::to_string).collect();
    if !close.is_empty() {
        output::line(&format!(
            "      trials one seed cannot tell from the best: {}",
            close.join(", ")
        ))?;
    }
    let cost: f64 = tuned.trials.iter().map(TrialRow::cost).sum();
    output::line(&format!("cost  {} trials, {cost:.2} whole runs", tuned.trials.len()))?;
    output::line(&format!("next  {}", choice.next))
}

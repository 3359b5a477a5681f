//! The searcher's interface, its inputs, and the searchers by name.
//! Not here: how each of them searches (a file each).

mod gp;
mod grid;
mod halton;
mod kind;
mod many;
mod random;
mod tpe;
mod two_knob;

pub use gp::Gp;
pub use grid::Grid;
pub use halton::Halton;
pub use kind::SearchKind;
pub use many::{Many, Method, Strategy};
pub use random::Random;
pub use tpe::Tpe;
pub use two_knob::TwoKnob;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardUniform};
use serde::{Deserialize, Serialize};

use crate::space::{Point, Space};

/// A trial so far, in the order in which trials were proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its setting.
    pub point: Point,
    /// Its outcome.
    pub outcome: Outcome,
}

/// Outcome of a trial. Larger scores are better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Still running.
    Pending,
    /// Diverged, was killed or ran out of memory: worse than any score.
    Failed,
    /// Stopped early as hopeless. Its score is not known, but it would hardly have been larger than this.
    Bound {
        /// The bound.
        at_most: f64,
    },
    /// Finished.
    Scored {
        /// Mean over seeds.
        score: f64,
        /// Their standard deviation, where there are at least two.
        std: Option<f64>,
        /// Number of seeds.
        seeds: usize,
        /// Mean validation loss over seeds, if it is known of all.
        loss: Option<f64>,
    },
}

impl Outcome {
    /// The name of the state in results, and the standard deviation between seeds, where it is known.
    pub fn state(&self) -> (&'static str, Option<f64>) {
        match *self {
            Outcome::Pending => ("running", None),
            Outcome::Failed => ("failed", None),
            Outcome::Bound { .. } => ("pruned", None),
            Outcome::Scored { std, .. } => ("complete", std),
        }
    }

    /// The result of one seed. One that is not finite is a failure.
    pub fn of(score: f64) -> Self {
        Self::of_seeds(&[score])
    }

    /// The result of several seeds; a failure if any of them failed, which is a score that is not finite.
    pub fn of_seeds(scores: &[f64]) -> Self {
        let seeds = scores.len();
        if seeds == 0 || scores.iter().any(|score| !score.is_finite()) {
            return Outcome::Failed;
        }
        let score = scores.iter().sum::<f64>() / seeds as f64;
        let squares: f64 = scores.iter().map(|other| (other - score).powi(2)).sum();
        let std = (seeds > 1).then(|| (squares / (seeds - 1) as f64).sqrt());
        Outcome::Scored { score, std, seeds, loss: None }
    }

    /// The same with the validation losses of the seeds; without them unless all are finite and above 0.
    pub fn with_losses(self, losses: &[f64]) -> Self {
        let is_known =
            !losses.is_empty() && losses.iter().all(|loss| loss.is_finite() && *loss > 0.0);
        match self {
            Outcome::Scored { score, std, seeds, .. } => {
                let loss = is_known.then(|| losses.iter().sum::<f64>() / losses.len() as f64);
                Outcome::Scored { score, std, seeds, loss }
            }
            other => other,
        }
    }

    /// The score, if there is one.
    pub fn score(&self) -> Option<f64> {
        match self {
            Outcome::Scored { score, .. } => Some(*score),
            _ => None,
        }
    }
}

/// Sum of squared deviations between seeds and its degrees of freedom: within trials that ran with several seeds, and
/// between trials of one setting with one seed each.
pub(crate) fn pooled_variance(history: &[Told]) -> (f64, f64) {
    let (mut squares, mut freedom) = (0.0, 0.0);
    for (i, told) in history.iter().enumerate() {
        match told.outcome {
            Outcome::Scored { std: Some(std), seeds, .. } => {
                squares += std * std * (seeds - 1) as f64;
                freedom += (seeds - 1) as f64;
            }
            Outcome::Scored { std: None, .. } => {
                let is_same = |other: &Told| {
                    other.point == told.point
                        && matches!(other.outcome, Outcome::Scored { std: None, .. })
                };
                // Each group counts once, at its first trial.
                if history[..i].iter().any(is_same) {
                    continue;
                }
                let same = history.iter().filter(|other| is_same(other));
                let scores: Vec<f64> = same.filter_map(|other| other.outcome.score()).collect();
                let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                squares += scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
                freedom += (scores.len() - 1) as f64;
            }
            _ => {}
        }
    }
    (squares, freedom)
}

/// The history with the runs of each setting joined: its first trial has the result of all of them, the later ones none.
/// A setting of which one run failed has failed.
pub(crate) fn joined(history: &[Told]) -> Vec<Told> {
    let is_over = |told: &Told| told.outcome != Outcome::Pending;
    let mut all = history.to_vec();
    for i in 0..all.len() {
        let same: Vec<usize> =
            (i..all.len()).filter(|&j| all[j].point == all[i].point && is_over(&all[j])).collect();
        if let [first, ref rest @ ..] = same[..]
            && first == i
            && !rest.is_empty()
        {
            let outcomes: Vec<Outcome> = same.iter().map(|&j| all[j].outcome).collect();
            all[i].outcome = join(&outcomes);
            for &j in rest {
                all[j].outcome = Outcome::Pending;
            }
        }
    }
    all
}

fn join(outcomes: &[Outcome]) -> Outcome {
    if outcomes.contains(&Outcome::Failed) {
        return Outcome::Failed;
    }
    let scored = |outcome: &Outcome| match *outcome {
        Outcome::Scored { score, std, seeds, loss } => Some((score, std, seeds, loss)),
        _ => None,
    };
    let scored: Vec<_> = outcomes.iter().filter_map(scored).collect();
    let seeds: usize = scored.iter().map(|run| run.2).sum();
    // Bounds alone.
    let Some(&(_, std, _, _)) = scored.first() else { return outcomes[0] };
    let count = seeds as f64;
    let score = scored.iter().map(|run| run.0 * run.2 as f64).sum::<f64>() / count;
    let squares = scored.iter().map(|&(mean, std, seeds, _)| {
        let within = std.unwrap_or(0.0).powi(2) * (seeds - 1) as f64;
        within + seeds as f64 * (mean - score).powi(2)
    });
    let squares: f64 = squares.sum();
    let std = if seeds > 1 { Some((squares / (count - 1.0)).sqrt()) } else { std };
    let losses = scored.iter().map(|run| run.3.map(|loss| loss * run.2 as f64));
    let loss = losses.sum::<Option<f64>>().map(|sum| sum / count);
    Outcome::Scored { score, std, seeds, loss }
}

/// The next step of a search.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask<P = Point> {
    /// Try this.
    Try(P),
    /// Nothing before a pending trial is known.
    Wait,
    /// The search is over, and why.
    Done(String),
}

/// Proposes trials.
pub trait Searcher {
    /// The next trial after those in `history`: a function of it and the configuration, of nothing else.
    fn ask(&self, history: &[Told]) -> Ask;
}

/// A searcher with its configuration, as a study saves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "searcher", rename_all = "kebab-case")]
pub enum Search {
    /// Ours.
    TwoKnob(TwoKnob),
    /// Uniform.
    Random(Random),
    /// A low-discrepancy sequence.
    Halton(Halton),
    /// A full table.
    Grid(Grid),
    /// Tree-structured Parzen estimators.
    Tpe(Tpe),
    /// A Gaussian process with expected improvement.
    GpEi(Gp),
}

impl Search {
    /// Its name, as the command takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Search::TwoKnob(_) => "two-knob",
            Search::Random(_) => "random",
            Search::Halton(_) => "halton",
            Search::Grid(_) => "grid",
            Search::Tpe(_) => "tpe",
            Search::GpEi(_) => "gp",
        }
    }

    /// The space it searches.
    pub fn space(&self) -> &Space {
        match self {
            Search::TwoKnob(TwoKnob { space, .. })
            | Search::Random(Random { space, .. })
            | Search::Halton(Halton { space, .. })
            | Search::Grid(Grid { space, .. })
            | Search::Tpe(Tpe { space, .. })
            | Search::GpEi(Gp { space, .. }) => space,
        }
    }
}

impl Searcher for Search {
    fn ask(&self, history: &[Told]) -> Ask {
        match self {
            Search::TwoKnob(searcher) => searcher.ask(history),
            Search::Random(searcher) => searcher.ask(history),
            Search::Halton(searcher) => searcher.ask(history),
            Search::Grid(searcher) => searcher.ask(history),
            Search::Tpe(searcher) => searcher.ask(history),
            Search::GpEi(searcher) => searcher.ask(history),
        }
    }
}

/// The random numbers of proposal `number`: they depend on nothing but it and the seed.
fn rng(seed: u64, number: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64);
    rng
}

fn uniform(rng: &mut ChaCha8Rng) -> [f64; 2] {
    [StandardUniform.sample(rng), StandardUniform.sample(rng)]
}

/// Scores for models that need one for every finished trial: a failure counts as the worst score less the spread of
/// all, a bound as itself; none for trials that still run. Without any score there is nothing to compare with.
pub(crate) fn finite_scores(history: &[Told]) -> Vec<Option<f64>> {
    let scores = || history.iter().filter_map(|told| told.outcome.score());
    let (worst, best) =
        scores().fold((f64::INFINITY, f64::NEG_INFINITY), |(w, b), s| (w.min(s), b.max(s)));
    let failed = if worst.is_finite() { worst - (best - worst) } else { 0.0 };
    let value = |told: &Told| match told.outcome {
        Outcome::Pending => None,
        Outcome::Failed => Some(failed),
        Outcome::Bound { at_most } => Some(at_most),
        Outcome::Scored { score, .. } => Some(score),
    };
    history.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_pooled_and_a_failed_one_fails_the_trial() {
        let outcome = Outcome::of_seeds(&[0.8, 0.9, 1.0]);
        let Outcome::Scored { score, std: Some(std), seeds: 3, loss: None } = outcome else {
            panic!("{outcome:?}");
        };
        assert!((score - 0.9).abs() < 1e-12 && (std - 0.1).abs() < 1e-12);
        assert_eq!(Outcome::of_seeds(&[0.8, f64::NAN]), Outcome::Failed);
        assert_eq!(Outcome::of_seeds(&[]), Outcome::Failed);
        let told = |scores: &[f64]| Told { point: [0.0, 0.0], outcome: Outcome::of_seeds(scores) };
        assert_eq!(pooled_variance(&[told(&[0.5])]), (0.0, 0.0));
        let (squares, freedom) =
            pooled_variance(&[told(&[0.8, 0.9, 1.0]), told(&[0.0, 0.0]), told(&[0.5])]);
        assert!((squares - 0.02).abs() < 1e-12 && freedom == 3.0);
    }

    #[test]
    fn repeated_settings_are_joined_and_their_noise_stays() {
        let told = |x: f64, outcome: Outcome| Told { point: [x, 0.0], outcome };
        let history = [
            told(0.0, Outcome::of(0.80).with_losses(&[0.5])),
            told(1.0, Outcome::of(0.7)),
            told(0.0, Outcome::of_seeds(&[0.82, 0.84]).with_losses(&[0.4, 0.6])),
            told(1.0, Outcome::Failed),
            told(2.0, Outcome::Pending),
            told(2.0, Outcome::of(0.6)),
        ];
        let all = joined(&history);
        let Outcome::Scored { score, std: Some(std), seeds: 3, loss: Some(loss) } = all[0].outcome
        else {
            panic!("{all:?}");
        };
        assert!((score - 0.82).abs() < 1e-12 && (std - 0.02).abs() < 1e-12, "{all:?}");
        assert!((loss - 0.5).abs() < 1e-12);
        assert_eq!(all[1].outcome, Outcome::Failed);
        assert_eq!([all[2].outcome, all[3].outcome], [Outcome::Pending; 2]);
        assert_eq!(all[4..], history[4..]);
        assert_eq!(joined(&all), all);
    }

    #[test]
    fn failures_are_worse_than_any_score() {
        let told = |outcome| Told { point: [0.0, 0.0], outcome };
        let history =
            [Outcome::of(0.4), Outcome::Failed, Outcome::Pending, Outcome::of(0.5)].map(told);
        let values = finite_scores(&history);
        assert!((values[1].unwrap() - 0.3).abs() < 1e-12 && values[2].is_none());
        let bound = [Outcome::of(0.4), Outcome::Bound { at_most: 0.35 }].map(told);
        assert_eq!(finite_scores(&bound)[1], Some(0.35));
    }
}

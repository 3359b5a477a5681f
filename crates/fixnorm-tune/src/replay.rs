//! Replays searches on a landscape whose truth is known: regret after every trial, trials to the target.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardUniform};
use serde::Serialize;

use crate::choice::choose;
use crate::quadratic::best_of;
use crate::search::{Ask, Gp, Halton, Random, Search, Searcher, Told, Tpe, TwoKnob};
use crate::space::{Point, Space};
use crate::surface::Landscape;

/// Rule by which a replay chooses among its trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The best score seen.
    Best,
    /// As [`choose`] does.
    Fit,
}

/// A tuner to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuner {
    /// As in the table of results.
    pub name: &'static str,
    kind: Kind,
    /// Its rule of choice.
    pub pick: Pick,
    /// Trials for each one that the others have.
    pub budget: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TwoKnob { stops: bool },
    Random,
    Halton,
    Tpe { startup: usize },
    Gp { startup: usize, started: bool },
}

/// The tuners that are compared: ours and its peers, each with the choice it usually makes; ours with the peers' choice and
/// Halton with ours, which shows how much is due to the choice; and ours without its stopping rule and the repetitions at
/// the end, as the peers have none.
pub const TUNERS: [Tuner; 12] = {
    const fn tuner(name: &'static str, kind: Kind, pick: Pick, budget: usize) -> Tuner {
        Tuner { name, kind, pick, budget }
    }
    [
        tuner("two-knob", Kind::TwoKnob { stops: true }, Pick::Fit, 1),
        tuner("two-knob-on", Kind::TwoKnob { stops: false }, Pick::Fit, 1),
        tuner("two-knob-best", Kind::TwoKnob { stops: true }, Pick::Best, 1),
        tuner("random", Kind::Random, Pick::Best, 1),
        tuner("halton", Kind::Halton, Pick::Best, 1),
        tuner("halton-2x", Kind::Halton, Pick::Best, 2),
        tuner("halton-fit", Kind::Halton, Pick::Fit, 1),
        tuner("tpe-3", Kind::Tpe { startup: 3 }, Pick::Best, 1),
        tuner("tpe-10", Kind::Tpe { startup: 10 }, Pick::Best, 1),
        tuner("gp-3", Kind::Gp { startup: 3, started: false }, Pick::Best, 1),
        tuner("gp-10", Kind::Gp { startup: 10, started: false }, Pick::Best, 1),
        tuner("gp-centre", Kind::Gp { startup: 3, started: true }, Pick::Best, 1),
    ]
};

impl Tuner {
    fn search(&self, space: &Space, start: Point, noise: f64, seed: u64) -> Search {
        let space = space.clone();
        match self.kind {
            Kind::TwoKnob { stops: true } => {
                Search::TwoKnob(TwoKnob { repeats: 2, ..TwoKnob::new(space, start, noise) })
            }
            Kind::TwoKnob { stops: false } => {
                Search::TwoKnob(TwoKnob { stop_at: 0.0, ..TwoKnob::new(space, start, noise) })
            }
            Kind::Random => Search::Random(Random { space, seed }),
            Kind::Halton => Search::Halton(Halton { space, seed }),
            Kind::Tpe { startup } => Search::Tpe(Tpe { space, seed, startup, first: None }),
            Kind::Gp { startup, started } => {
                Search::GpEi(Gp { space, seed, startup, first: started.then_some(start) })
            }
        }
    }
}

/// Settings of replays.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Trials that a tuner has.
    pub trials: usize,
    /// Replays, each with a seed and an offset of its own.
    pub replays: usize,
    /// Start of the tuners that take one, in log2.
    pub start: Point,
    /// Each replay moves the start by up to this many octaves along each axis.
    pub offset: f64,
    /// Decides all draws.
    pub seed: u64,
}

/// A mean with the interval that holds 95 % of its bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// 2.5 % of resampled means are below.
    pub low: f64,
    /// 2.5 % of resampled means are above.
    pub high: f64,
}

/// Results of a tuner's replays.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The tuner.
    pub tuner: &'static str,
    /// Regret of the choice after each trial, in true scores: the best cell's less the chosen one's.
    pub regret: Vec<Interval>,
    /// Mean regret on test, after each trial: the test score of the cell that is truly best on validation less the
    /// chosen one's; none where a replay's choice has no test score.
    pub test_regret: Vec<Option<f64>>,
    /// Trials until the choice is within one seed's standard deviation of the best and stays there; one more than
    /// there were where it never is.
    pub to_target: Interval,
    /// Share of replays that got there.
    pub reached: f64,
    /// Trials until the choice is that good for the first time, whatever it is later.
    pub first_hit: Interval,
    /// Trials used before the tuner stopped by itself or had no more.
    pub used: f64,
}

/// Carries out the replays of a tuner.
pub fn judge(landscape: &dyn Landscape, tuner: &Tuner, setting: &Setting) -> Judged {
    let (noise, best) = (landscape.noise(), landscape.best());
    let mut regrets: Vec<Vec<f64>> = vec![];
    let best_test = best_test(landscape);
    let mut tests: Vec<Option<f64>> = vec![Some(0.0); setting.trials];
    let (mut to_target, mut first_hit, mut reached, mut used) = (vec![], vec![], 0, 0);
    for replay in 0..setting.replays as u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
        rng.set_stream(replay);
        let mut shift = || setting.offset * (2.0 * share(&mut rng) - 1.0);
        let start = [setting.start[0] + shift(), setting.start[1] + shift()];
        let search = tuner.search(landscape.space(), start, noise, rng.next_u64());
        let (chosen, trials) = carry_out(landscape, tuner, &search, setting.trials, &mut rng);
        let guess = worst(landscape);
        let score = |point: &Option<Point>| point.map_or(guess, |point| landscape.truth(point));
        let regret: Vec<f64> = chosen.iter().map(|point| best - score(point)).collect();
        for (sum, point) in tests.iter_mut().zip(&chosen) {
            let test = point.and_then(|point| landscape.test(point));
            *sum = sum.zip(best_test).zip(test).map(|((sum, best), test)| sum + best - test);
        }
        let hit = regret.iter().rposition(|&regret| regret > noise).map_or(1, |last| last + 2);
        let first = regret.iter().position(|&regret| regret <= noise).unwrap_or(setting.trials);
        first_hit.push((first + 1) as f64);
        reached += usize::from(hit <= setting.trials);
        used += trials;
        to_target.push(hit as f64);
        regrets.push(regret);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(setting.seed);
    let column = |i: usize| regrets.iter().map(|regret| regret[i]).collect::<Vec<f64>>();
    Judged {
        tuner: tuner.name,
        regret: (0..setting.trials).map(|i| bootstrap(&column(i), &mut rng)).collect(),
        test_regret: tests.iter().map(|sum| Some((*sum)? / setting.replays as f64)).collect(),
        to_target: bootstrap(&to_target, &mut rng),
        first_hit: bootstrap(&first_hit, &mut rng),
        reached: reached as f64 / setting.replays as f64,
        used: used as f64 / setting.replays as f64,
    }
}

/// The choice after each trial, none before anything has a score, and the number of trials used.
fn carry_out(
    landscape: &dyn Landscape,
    tuner: &Tuner,
    search: &Search,
    trials: usize,
    rng: &mut ChaCha8Rng,
) -> (Vec<Option<Point>>, usize) {
    let (mut history, mut chosen): (Vec<Told>, Vec<Option<Point>>) = (vec![], vec![]);
    for _ in 0..trials {
        let before = history.len();
        for _ in 0..tuner.budget {
            let Ask::Try(point) = search.ask(&history) else { break };
            history.push(Told { point, outcome: landscape.draw(point, rng) });
        }
        let last = chosen.last().copied().flatten();
        chosen.push(match tuner.pick {
            _ if history.len() == before => last,
            Pick::Best => best_of(&history).map(|(point, _)| point),
            Pick::Fit => {
                choose(landscape.space(), &history, landscape.noise()).map(|choice| choice.point)
            }
        });
    }
    (chosen, history.len())
}

/// The test score where the true score is best.
fn best_test(landscape: &dyn Landscape) -> Option<f64> {
    let points = landscape.space().lattice(1.0).into_iter();
    let best = points.max_by(|a, b| landscape.truth(*a).total_cmp(&landscape.truth(*b)))?;
    landscape.test(best)
}

/// The least true score, which a choice counts as before any trial has a score.
fn worst(landscape: &dyn Landscape) -> f64 {
    let points = landscape.space().lattice(1.0).into_iter();
    points.map(|point| landscape.truth(point)).fold(f64::INFINITY, f64::min)
}

fn share(rng: &mut ChaCha8Rng) -> f64 {
    StandardUniform.sample(rng)
}

/// Resamples of a bootstrap.
const RESAMPLES: usize = 1000;

fn bootstrap(values: &[f64], rng: &mut ChaCha8Rng) -> Interval {
    let n = values.len();
    let mean = |sum: f64| sum / n as f64;
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| mean((0..n).map(|_| values[(rng.next_u64() % n as u64) as usize]).sum()))
        .collect();
    means.sort_by(f64::total_cmp);
    Interval {
        mean: mean(values.iter().sum()),
        low: means[RESAMPLES / 40],
        high: means[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::{Shape, Surface};

    fn setting() -> Setting {
        Setting { trials: 12, replays: 20, start: [-4.0, 1.0], offset: 2.0, seed: 7 }
    }

    #[test]
    fn the_same_seed_judges_the_same_and_more_trials_never_hurt_on_average() {
        let surface = Surface::new(Shape::Quadratic { tilt: 0.3 }, [-3.0, 2.0], 0.001);
        for tuner in TUNERS.iter().filter(|tuner| tuner.pick == Pick::Best) {
            let judged = judge(&surface, tuner, &setting());
            assert_eq!(judged.regret, judge(&surface, tuner, &setting()).regret, "{}", tuner.name);
            let means: Vec<f64> = judged.regret.iter().map(|interval| interval.mean).collect();
            assert!(means[11] <= means[0], "{} {means:?}", tuner.name);
            assert!(judged.regret.iter().all(|i| i.low <= i.mean && i.mean <= i.high));
        }
    }

    #[test]
    fn bootstrap_holds_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let interval = bootstrap(&[0.0, 1.0, 2.0, 3.0], &mut rng);
        assert_eq!(interval.mean, 1.5);
        assert!(interval.low < 1.0 && interval.high > 2.0, "{interval:?}");
    }
}

//! The two-knob search: a model of all trials (`model.rs`), and the trial of the largest expected gain.
//! Not here: where it starts (given from outside), the models themselves (`ridge.rs`, `quadratic.rs`).
//!
//! 1. The start. As long as nothing has a score, smaller learning rates.
//! 2. The model of all trials proposes the point of the largest expected gain over the best known one, not far from what
//!    has a score, until that gain is below a share of the noise between seeds. After one trial the model is all prior:
//!    the prior's widths decide how far the second trial is from it.
//!    It goes on while the fallback, which knows no shapes, expects to gain as much as the noise.
//! 3. Then the setting that would be chosen runs again with other seeds, which measures the noise between seeds. Where that is
//!    less than was assumed, or another setting looks better then, the search goes on.
//!
//! Trials come in rounds. Those of a round do not know each other's results, so that they can run side by side, but each
//! assumes that the ones before it turn out as the model predicts. A proposal depends on the results of whole rounds and on
//! nothing else, so the order in which trials finish changes nothing.
//!
//! # Source
//! Section 4 of docs/method.md; ours.

use serde::{Deserialize, Serialize};

use super::{Ask, Outcome, Searcher, Told};
use crate::model::{self, Model, worth};
use crate::quadratic::best_of;
use crate::space::{Point, Space};

/// The two-knob search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoKnob {
    /// The space to search.
    pub space: Space,
    /// First guess of both knobs, in log2.
    pub start: Point,
    /// Standard deviation between seeds, until trials with several seeds measure it.
    pub noise: f64,
    /// Trials of a round.
    #[serde(default = "alone")]
    pub parallel: usize,
    /// The search is over when the expected gain is below this share of the noise.
    pub stop_at: f64,
    /// Further runs that the setting to be chosen has before the search is over, each with seeds of its own.
    #[serde(default)]
    pub repeats: usize,
}

fn alone() -> usize {
    1
}

/// Octaves between the points that are compared as proposals.
const LATTICE: f64 = 0.25;

/// Largest distance of a proposal from the box around all scored trials, in octaves.
const REACH: f64 = 1.0;

/// The search is not over while the fallback expects a gain of this share of the noise: where the trials rise toward an edge,
/// a ridge may be too sure that the best one is known.
const DOUBT: f64 = 1.0;

/// Reduction of the learning rate after a failure, in octaves, as long as no trial has a score.
const RETREAT: f64 = 1.5;

impl TwoKnob {
    /// The search with one trial after another.
    pub fn new(space: Space, start: Point, noise: f64) -> Self {
        Self { space, start, noise, parallel: 1, stop_at: 0.1, repeats: 0 }
    }

    /// The trials of earlier rounds, and those of this round as the model predicts them.
    fn believed(&self, known: &[Told], round: &[Told], noise: f64) -> Vec<Told> {
        let mut believed = known.to_vec();
        for told in round {
            // A start without a result is as good as any.
            let score = Model::fit(&self.space, &believed, noise)
                .map_or(0.0, |(model, ..)| model.at(told.point).mean);
            // With the best trial's loss, so that losses remain known of all.
            let losses: Vec<f64> = best_loss(&believed).into_iter().collect();
            let outcome = Outcome::of(score).with_losses(&losses);
            believed.push(Told { point: told.point, outcome });
        }
        believed
    }

    /// Proposes a smaller learning rate than any that failed, while no trial has a score.
    fn retreat(&self, history: &[Told]) -> Ask {
        let lowest = history.iter().map(|told| told.point[0]).fold(f64::INFINITY, f64::min);
        let point = self.space.snap([lowest - RETREAT, self.start[1]]);
        if point[0] < lowest { Ask::Try(point) } else { Ask::Done("every trial failed".to_owned()) }
    }

    /// The setting that would be chosen.
    fn chosen(&self, history: &[Told], noise: f64) -> Option<Point> {
        let (model, fitted, noise) = Model::fit(&self.space, history, noise)?;
        let worths =
            fitted.iter().filter_map(|told| Some((told, worth(told, &model, noise)?.mean)));
        worths.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(told, _)| told.point)
    }

    /// Returns true if a setting that would be chosen has had fewer runs than it should, unless there were as many
    /// repetitions of others.
    fn is_unsure(&self, history: &[Told], chosen: Point) -> bool {
        let runs = history.iter().filter(|told| told.point == chosen).count();
        let is_repeated = |(i, told): &(usize, &Told)| {
            history[..*i].iter().any(|other| other.point == told.point)
        };
        let repeats = history.iter().enumerate().filter(is_repeated).count();
        runs <= self.repeats && repeats < 2 * self.repeats
    }

    /// The point of the largest expected gain over the best known one, and that gain. Of equal ones it is the one
    /// nearest to the centre of the space, where there is most left to try on all sides.
    fn proposal(&self, history: &[Told], model: &Model) -> Option<(Point, f64)> {
        let scored = history.iter().filter(|told| told.outcome.score().is_some());
        let incumbent = scored
            .map(|told| told.point)
            .reduce(|best, other| if model.gain(other, best).mean > 0.0 { other } else { best })?;
        let candidates = self.space.lattice(LATTICE).into_iter();
        let fresh = candidates.filter(|&point| is_sensible(&self.space, history, point));
        let fresh: Vec<Point> = fresh.collect();
        let gains = model.expected_gains(&fresh, incumbent);
        let gains: Vec<(Point, f64)> = fresh.into_iter().zip(gains).collect();
        let largest = gains.iter().map(|(_, gain)| *gain).fold(f64::NEG_INFINITY, f64::max);
        let centre = self.space.centre();
        let off = |point: Point| (point[0] - centre[0]).hypot(point[1] - centre[1]);
        // Rounding apart.
        let equal = gains.into_iter().filter(|(_, gain)| *gain >= largest - 1e-9 * largest.abs());
        equal.min_by(|a, b| off(a.0).total_cmp(&off(b.0)))
    }
}

impl Searcher for TwoKnob {
    fn ask(&self, history: &[Told]) -> Ask {
        if history.is_empty() {
            return Ask::Try(self.space.snap(self.start));
        }
        let (known, round) = history.split_at(history.len() - history.len() % self.parallel.max(1));
        if known.iter().any(|told| told.outcome == Outcome::Pending) {
            return Ask::Wait;
        }
        if !known.is_empty() && best_of(known).is_none() {
            return self.retreat(history);
        }
        let (noise, _) = model::noise(known, self.noise);
        let believed = self.believed(known, round, noise);
        let propose = |model: Option<Model>| self.proposal(&believed, &model?);
        let fit = Model::fit(&self.space, &believed, noise).map(|(model, ..)| model);
        let over = match propose(fit) {
            Some((point, gain)) if gain >= self.stop_at * noise => return Ask::Try(point),
            Some((_, gain)) => format!(
                "another trial is expected to gain {gain:.5}, below {} of the noise between seeds, {noise:.5}",
                self.stop_at
            ),
            None => "nothing is left to try".to_owned(),
        };
        let second = propose(Model::fallback(&self.space, &believed, noise));
        if let Some((point, _)) = second.filter(|(_, gain)| *gain >= DOUBT * noise) {
            return Ask::Try(point);
        }
        match self.chosen(&believed, noise) {
            Some(chosen) if self.is_unsure(&believed, chosen) => Ask::Try(chosen),
            _ => Ask::Done(over),
        }
    }
}

/// The validation loss of the best trial, if it is known.
fn best_loss(history: &[Told]) -> Option<f64> {
    let scored = history.iter().filter_map(|told| match told.outcome {
        Outcome::Scored { score, loss, .. } => Some((score, loss)),
        _ => None,
    });
    scored.reduce(|best, other| if other.0 > best.0 { other } else { best })?.1
}

/// Returns true for a point that is new, near the scored trials, and nearer to one of them than to a failure.
pub(crate) fn is_sensible(space: &Space, history: &[Told], point: Point) -> bool {
    let apart = |a: Point, b: Point| (a[0] - b[0]).hypot(a[1] - b[1]);
    let nearest = |kind: fn(&Outcome) -> bool| {
        let same = history.iter().filter(|told| kind(&told.outcome));
        same.map(|told| apart(told.point, point)).fold(f64::INFINITY, f64::min)
    };
    let is_known = history.iter().any(|told| {
        (0..2).all(|i| {
            let fine = space.axes[i].step.map_or(LATTICE, |step| step / 2.0);
            (told.point[i] - point[i]).abs() < 0.99 * fine
        })
    });
    let is_near = (0..2).all(|i| {
        let scored = history.iter().filter(|told| told.outcome.score().is_some());
        let (low, high) = scored.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), told| {
            (low.min(told.point[i]), high.max(told.point[i]))
        });
        let reach = space.axes[i].step.unwrap_or(0.0).max(REACH);
        (low - reach..=high + reach).contains(&point[i])
    });
    let scored = nearest(|outcome| outcome.score().is_some());
    let failed = nearest(|outcome| *outcome == Outcome::Failed);
    !is_known && is_near && scored < failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    fn space() -> Space {
        Space::new(Axis::new("lr", -10.0, 2.0), Axis::new("alpha", -2.0, 4.0)).unwrap()
    }

    /// Carries the search out on a function; `None` fails.
    fn carry_out(search: &TwoKnob, trials: usize, f: impl Fn(Point) -> Option<f64>) -> Vec<Told> {
        let mut history = vec![];
        while history.len() < trials {
            let Ask::Try(point) = search.ask(&history) else { break };
            let outcome = f(point).map_or(Outcome::Failed, Outcome::of);
            history.push(Told { point, outcome });
        }
        history
    }

    fn bowl([x, y]: Point) -> Option<f64> {
        Some(0.9 - 0.01 * ((x + 3.0).powi(2) + (y - 1.0).powi(2)))
    }

    #[test]
    fn finds_a_bowl_in_few_trials_and_stops() {
        for start in [[-3.0, 1.0], [-5.5, 0.0], [-1.5, 2.5], [-9.0, -1.5]] {
            let search = TwoKnob::new(space(), start, 1e-3);
            let history = carry_out(&search, 40, bowl);
            let (best, score) = best_of(&history).unwrap();
            assert!(score > 0.897, "{best:?} {score} from {start:?}");
            assert!(history.len() <= 16, "{} trials from {start:?}", history.len());
            assert!(matches!(search.ask(&history), Ask::Done(_)));
        }
    }

    #[test]
    fn of_equal_directions_the_second_trial_takes_the_one_with_more_room() {
        let axes = (Axis::new("lr", -8.0, 2.0), Axis::new("wd", -8.0, 2.0));
        let space = Space::new(axes.0, axes.1).unwrap();
        for (start, sign) in [([-6.0, -5.5], 1.0), ([0.0, 0.5], -1.0)] {
            let search = TwoKnob::new(space.clone(), start, 1e-3);
            let history = [Told { point: start, outcome: Outcome::of(0.8) }];
            let Ask::Try(second) = search.ask(&history) else { panic!("there is more to try") };
            for axis in 0..2 {
                assert!(sign * (second[axis] - start[axis]) > 0.0, "{second:?} after {start:?}");
            }
        }
    }

    #[test]
    fn walks_away_from_divergence() {
        let cliff = |p: Point| if p[0] > -2.5 { None } else { bowl(p) };
        for start in [[1.5, 0.0], [-2.0, 3.0]] {
            let search = TwoKnob::new(space(), start, 1e-3);
            let history = carry_out(&search, 15, cliff);
            assert!(best_of(&history).unwrap().1 > 0.89, "{history:?}");
        }
        let search = TwoKnob::new(space(), [0.0, 0.0], 1e-3);
        let history = carry_out(&search, 40, |_| None);
        assert!(history.len() < 12);
        assert_eq!(search.ask(&history), Ask::Done("every trial failed".to_owned()));
    }

    #[test]
    fn trials_of_a_round_run_side_by_side_and_lead_to_the_same() {
        let search = TwoKnob { parallel: 3, ..TwoKnob::new(space(), [-4.0, 1.5], 1e-3) };
        let alone = carry_out(&search, 30, bowl);
        // All workers take what they can before any finishes.
        let mut history: Vec<Told> = vec![];
        loop {
            match search.ask(&history) {
                Ask::Try(point) => history.push(Told { point, outcome: Outcome::Pending }),
                Ask::Wait => {
                    assert_eq!(history.len() % 3, 0);
                    let waiting = |told: &&mut Told| told.outcome == Outcome::Pending;
                    let last = history.iter_mut().rev().find(waiting).unwrap();
                    last.outcome = Outcome::of(bowl(last.point).unwrap());
                }
                Ask::Done(_) => {
                    // The last round may be a part of one.
                    let waiting = |told: &&mut Told| told.outcome == Outcome::Pending;
                    let Some(last) = history.iter_mut().rev().find(waiting) else { break };
                    last.outcome = Outcome::of(bowl(last.point).unwrap());
                }
            }
        }
        assert_eq!(history, alone);
    }

    #[test]
    fn a_best_setting_at_the_edge_or_in_a_corner_is_found() {
        let axes = (Axis::new("angle", -10.0, -2.0), Axis::new("alpha", -2.0, 5.0));
        let space = Space::new(axes.0, axes.1).unwrap();
        for top in [[-2.0, 5.0], [-10.0, 2.0], [-6.0, -2.0], [-9.5, 5.0]] {
            // No surface of the family: it falls alike on all sides, and never flattens.
            let slope = |p: Point| Some(0.9 - 0.006 * (p[0] - top[0]).hypot(p[1] - top[1]));
            let search = TwoKnob::new(space.clone(), [-6.0, 2.0], 0.004);
            let history = carry_out(&search, 20, slope);
            let (best, score) = best_of(&history).unwrap();
            assert!(score > 0.892, "{best:?} {score} for {top:?} in {}", history.len());
        }
    }

    #[test]
    fn the_chosen_setting_runs_again_before_the_end() {
        let once = TwoKnob::new(space(), [-4.0, 1.5], 0.03);
        let short = carry_out(&once, 40, bowl);
        let again = TwoKnob { repeats: 2, ..once };
        let history = carry_out(&again, 40, bowl);
        let (before, after) = history.split_at(short.len());
        assert_eq!(before, short);
        let [first, second] = after else { panic!("{after:?}") };
        assert!(first.point == second.point && before.contains(first), "{after:?}");
        // A worse second seed moves the choice, and that one runs again, too.
        let worse = Told { point: first.point, outcome: Outcome::of(0.8) };
        let Ask::Try(other) = again.ask(&[before, &[worse]].concat()) else { panic!("not over") };
        assert!(other != first.point, "{other:?}");
    }

    #[test]
    fn every_prefix_of_a_history_proposes_what_followed() {
        let search = TwoKnob::new(space(), [-6.0, 0.5], 1e-3);
        let history = carry_out(&search, 30, bowl);
        for length in 0..history.len() {
            assert_eq!(search.ask(&history[..length]), Ask::Try(history[length].point));
        }
    }

    #[test]
    fn steps_of_a_table_are_respected_and_no_cell_is_tried_twice() {
        let axes = space().axes.map(|axis| axis.with_step(1.5));
        let space = Space { axes, ..space() };
        let search = TwoKnob::new(space.clone(), [-4.1, 1.2], 1e-4);
        let history = carry_out(&search, 60, bowl);
        for (i, told) in history.iter().enumerate() {
            assert_eq!(space.snap(told.point), told.point);
            assert!(history[..i].iter().all(|earlier| earlier.point != told.point), "{told:?}");
        }
    }
}

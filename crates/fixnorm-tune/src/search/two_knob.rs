//! The two-knob search: a line in the first knob, a line in the second, then a quadratic in both.
//! Not here: where it starts (given from outside), the quadratic itself (`quadratic.rs`).
//!
//! 1. Three points along the learning rate around the start; then on towards the better side until the best has a
//!    worse one, a failed one or the edge on both sides. The fit's best point between them is kept.
//! 2. The same along the other knob at that learning rate, whose own score there is read from the fit.
//! 3. The quadratic through all trials proposes the point of the largest expected gain over the best known one, until
//!    that gain is below a share of the noise between seeds.
//!
//! The search is written as if trials were function calls. [`Known`] answers the calls from the history, and ends it
//! with what to try next at the first that the history does not hold. So it has no state besides the history, and the
//! trials of a line can run side by side.
//!
//! # Source
//! Section 4 of docs/method.md; ours.

use serde::{Deserialize, Serialize};

use super::{Ask, Outcome, Searcher, Told, pooled_std};
use crate::quadratic::{Quadratic, best_of};
use crate::space::{Point, Space};

/// The two-knob search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoKnob {
    /// Where.
    pub space: Space,
    /// First guess of both knobs, in log2.
    pub start: Point,
    /// Distance of a line's points in octaves.
    pub step: [f64; 2],
    /// Standard deviation between seeds, until trials with several seeds measure it.
    pub noise: f64,
    /// The search is over when the expected gain is below this share of the noise.
    pub stop_at: f64,
}

/// Octaves between the points that are compared as proposals.
const LATTICE: f64 = 0.25;

/// How far proposals leave the box of what has a score, in octaves.
const REACH: f64 = 1.0;

impl TwoKnob {
    /// The search with its usual steps.
    pub fn new(space: Space, start: Point, noise: f64) -> Self {
        Self { space, start, step: [1.5, 1.5], noise, stop_at: 0.1 }
    }

    fn search(&self, mut known: Known) -> Result<String, Ask> {
        let mut at = self.space.snap(self.start);
        for axis in [0, 1] {
            at = self.line(&mut known, axis, at)?;
            if best_of(known.seen()).is_none() {
                return Ok("every trial failed".to_owned());
            }
        }
        loop {
            let noise = self.noise(known.seen());
            let Some((point, gain)) = self.proposal(known.seen(), noise) else {
                return Ok("nothing is left to try".to_owned());
            };
            if gain < self.stop_at * noise {
                return Ok(format!(
                    "another trial is expected to gain {gain:.5}, below {} of the noise between seeds, {noise:.5}",
                    self.stop_at
                ));
            }
            known.take(&[point])?;
        }
    }

    fn noise(&self, history: &[Told]) -> f64 {
        pooled_std(history).filter(|&std| std > 0.0).unwrap_or(self.noise).max(1e-9)
    }

    /// Steps 1 and 2: `from` with the coordinate along `axis` replaced by the best found.
    fn line(&self, known: &mut Known, axis: usize, from: Point) -> Result<Point, Ask> {
        let bounds = &self.space.axes[axis];
        let step = self.step[axis].min((bounds.high - bounds.low) / 2.0);
        let centre = bounds.snap(from[axis].clamp(bounds.low + step, bounds.high - step));
        let at = |x: f64| {
            let mut point = from;
            point[axis] = x;
            self.space.snap(point)
        };
        let sides = [at(centre - step), at(centre + step)];
        let mut line = Line::default();
        match axis {
            0 => line.add(axis, known.take(&[at(centre), sides[0], sides[1]])?),
            _ => {
                line.add(axis, known.take(&sides)?);
                // The first line has shown what the middle is worth.
                let fit = Quadratic::fit(known.seen(), self.noise(known.seen()));
                line.points.push((centre, fit.map(|fit| fit.at(at(centre)).mean)));
            }
        }
        while let Some(next) = line.beyond(centre, step) {
            let next = at(next);
            // At the edge there is nothing beyond.
            if line.holds(next[axis]) {
                break;
            }
            line.add(axis, known.take(&[next])?);
        }
        let Some(fit) = Quadratic::fit(known.seen(), self.noise(known.seen())) else {
            return Ok(at(centre));
        };
        let (low, high) = line.bracket(centre);
        let inside = bounds.lattice(LATTICE).into_iter().filter(|x| (low..=high).contains(x));
        let best = inside.map(at).max_by(|a, b| fit.at(*a).mean.total_cmp(&fit.at(*b).mean));
        Ok(best.unwrap_or_else(|| at(line.best(centre).0)))
    }

    /// Step 3: the point of the largest expected gain over the best known one, and that gain.
    fn proposal(&self, history: &[Told], noise: f64) -> Option<(Point, f64)> {
        let fit = Quadratic::fit(history, noise)?;
        let scored = history.iter().filter(|told| told.outcome.score().is_some());
        let incumbent = scored
            .map(|told| told.point)
            .reduce(|best, other| if fit.gain(other, best).mean > 0.0 { other } else { best })?;
        let candidates = self.space.lattice(LATTICE).into_iter();
        let fresh = candidates.filter(|&point| is_sensible(&self.space, history, point));
        let gains = fresh.map(|point| (point, fit.expected_gain(point, incumbent)));
        gains.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Searcher for TwoKnob {
    fn ask(&self, history: &[Told]) -> Ask {
        self.search(Known { history, used: 0 }).map_or_else(|ask| ask, Ask::Done)
    }
}

/// Whether a point is new, not far from all scores, and not nearer to a failure than to a score.
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

/// The history, read as answers to what the search asks.
struct Known<'a> {
    history: &'a [Told],
    used: usize,
}

impl<'a> Known<'a> {
    /// The next trials of the history, which answer `points`; where it ends, what to try.
    fn take(&mut self, points: &[Point]) -> Result<&'a [Told], Ask> {
        let start = self.used;
        let end = start + points.len();
        if let Some(missing) = points.get(self.history.len().saturating_sub(start)) {
            return Err(Ask::Try(*missing));
        }
        let found = &self.history[start..end];
        if found.iter().any(|told| told.outcome == Outcome::Pending) {
            return Err(Ask::Wait);
        }
        self.used = end;
        Ok(found)
    }

    fn seen(&self) -> &'a [Told] {
        &self.history[..self.used]
    }
}

/// Coordinates along one axis and their scores; no score where the trial failed.
#[derive(Default)]
struct Line {
    points: Vec<(f64, Option<f64>)>,
}

impl Line {
    fn add(&mut self, axis: usize, trials: &[Told]) {
        self.points.extend(trials.iter().map(|told| (told.point[axis], told.outcome.score())));
    }

    fn holds(&self, x: f64) -> bool {
        self.points.iter().any(|(known, _)| (known - x).abs() < 1e-9)
    }

    /// The best point, of equals the one nearest to `centre`; where all failed, the lowest.
    fn best(&self, centre: f64) -> (f64, Option<f64>) {
        let better = |a: (f64, Option<f64>), b: (f64, Option<f64>)| match (a.1, b.1) {
            (Some(a), Some(b)) if a != b => a > b,
            (Some(_), Some(_)) => (a.0 - centre).abs() < (b.0 - centre).abs(),
            (None, None) => a.0 < b.0,
            (score, _) => score.is_some(),
        };
        let best = self.points.iter().copied();
        best.reduce(|best, other| if better(other, best) { other } else { best })
            .unwrap_or((centre, None))
    }

    /// The nearest points on both sides of the best.
    fn neighbours(&self, best: f64) -> [Option<(f64, Option<f64>)>; 2] {
        let below = self.points.iter().copied().filter(|point| point.0 < best);
        let above = self.points.iter().copied().filter(|point| point.0 > best);
        [below.max_by(|a, b| a.0.total_cmp(&b.0)), above.min_by(|a, b| a.0.total_cmp(&b.0))]
    }

    /// Where the line's optimum is looked for: between the neighbours of the best, but no nearer to a failure than the
    /// best is. The other knob's line would be lost there.
    fn bracket(&self, centre: f64) -> (f64, f64) {
        let (best, _) = self.best(centre);
        let [low, high] = self.neighbours(best).map(|neighbour| match neighbour {
            Some((x, Some(_))) => x,
            _ => best,
        });
        (low, high)
    }

    /// The next coordinate towards the better side; none when the best has a neighbour on both.
    fn beyond(&self, centre: f64, step: f64) -> Option<f64> {
        let (best, _) = self.best(centre);
        match self.neighbours(best) {
            [None, _] => Some(best - step),
            [_, None] => Some(best + step),
            _ => None,
        }
    }
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
    fn trials_of_a_line_run_side_by_side_and_lead_to_the_same() {
        let search = TwoKnob::new(space(), [-4.0, 1.5], 1e-3);
        let alone = carry_out(&search, 30, bowl);
        // All workers take what they can before any finishes.
        let mut history: Vec<Told> = vec![];
        loop {
            match search.ask(&history) {
                Ask::Try(point) => history.push(Told { point, outcome: Outcome::Pending }),
                Ask::Wait => {
                    let waiting = |told: &&mut Told| told.outcome == Outcome::Pending;
                    let last = history.iter_mut().rev().find(waiting).unwrap();
                    last.outcome = Outcome::of(bowl(last.point).unwrap());
                }
                Ask::Done(_) => break,
            }
        }
        assert_eq!(history, alone);
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
        let space = Space { axes };
        let search = TwoKnob::new(space.clone(), [-4.1, 1.2], 1e-4);
        let history = carry_out(&search, 60, bowl);
        for (i, told) in history.iter().enumerate() {
            assert_eq!(space.snap(told.point), told.point);
            assert!(history[..i].iter().all(|earlier| earlier.point != told.point), "{told:?}");
        }
    }
}

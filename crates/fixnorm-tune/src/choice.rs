//! The final choice among trials, with its error, and what to do next.

use serde::Serialize;

use crate::model::{self, Model, worth};
use crate::quadratic::{Estimate, Quadratic};
use crate::search::{Outcome, Told};
use crate::space::{Point, Space};

/// The best trial and how sure that is.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Number of the best trial.
    pub trial: usize,
    /// Its setting, in log2.
    pub point: Point,
    /// Its expected score: its own and the fit through all others, weighted by their certainty. Where losses are known,
    /// they count too.
    pub score: Estimate,
    /// Standard deviation between seeds, measured or assumed.
    pub noise: f64,
    /// True if the trials measured the noise themselves.
    pub noise_measured: bool,
    /// Numbers of the other trials that one seed cannot distinguish from it.
    pub within_noise: Vec<usize>,
    /// The fit's optimum, in log2.
    pub optimum: Point,
    /// The fit's score there.
    pub optimum_score: Estimate,
    /// Standard deviation of the optimum's coordinates, in octaves; none along an axis that does not bend down.
    pub optimum_std: [Option<f64>; 2],
    /// Second derivatives of a quadratic through all trials, score per octave².
    pub curvature: [Estimate; 2],
    /// Recommended next step.
    pub next: String,
}

/// Octaves between the points among which the fit's optimum is looked for.
const LATTICE: f64 = 0.125;

/// Chooses among the finished trials; `noise` is the standard deviation between seeds where they did not measure it.
/// None without a single score.
pub fn choose(space: &Space, history: &[Told], noise: f64) -> Option<Choice> {
    let (noise, noise_measured) = model::noise(history, noise);
    let (fit, fused, fused_noise) = Model::fit(space, history, noise)?;
    let worth = |told: &Told| worth(told, &fit, fused_noise);
    let scored: Vec<(usize, Estimate)> =
        fused.iter().enumerate().filter_map(|(i, told)| Some((i, worth(told)?))).collect();
    let &(trial, score) = scored.iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?;
    let close = scored.iter().filter(|(i, other)| *i != trial && other.mean >= score.mean - noise);
    let within_noise = close.map(|(i, _)| *i).collect();

    let points: Vec<Point> = history.iter().map(|told| told.point).collect();
    let inside = |p: &Point| {
        (0..2).all(|i| {
            let (low, high) = span(&points, i);
            (low..=high).contains(&p[i])
        })
    };
    let lattice = space.lattice(LATTICE).into_iter().filter(inside).chain([points[trial]]);
    let optimum = lattice.max_by(|a, b| fit.at(*a).mean.total_cmp(&fit.at(*b).mean))?;
    let finite = |x: f64| x.is_finite().then_some(x);
    let quadratic = Quadratic::fit(space, history, noise)?;
    Some(Choice {
        trial,
        point: points[trial],
        score,
        noise,
        noise_measured,
        within_noise,
        optimum,
        optimum_score: fit.at(optimum),
        optimum_std: fit.optimum_std(optimum).map(finite),
        curvature: [quadratic.curvature(0), quadratic.curvature(1)],
        next: next(space, &fused, trial, fit.gain(optimum, points[trial]).mean, noise, optimum),
    })
}

fn span(points: &[Point], axis: usize) -> (f64, f64) {
    let coordinates = points.iter().map(|point| point[axis]);
    coordinates.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

fn next(
    space: &Space,
    history: &[Told],
    trial: usize,
    gain: f64,
    noise: f64,
    optimum: Point,
) -> String {
    let point = history[trial].point;
    let scored: Vec<Point> =
        history.iter().filter(|told| told.outcome.score().is_some()).map(|t| t.point).collect();
    for (i, axis) in space.axes.iter().enumerate() {
        let (low, high) = span(&scored, i);
        let edge = match point[i] {
            x if high > low && x >= high - 1e-9 => "largest",
            x if high > low && x <= low + 1e-9 => "smallest",
            _ => continue,
        };
        return format!(
            "{} {:.4} is the {edge} that finished: try beyond it",
            axis.name,
            point[i].exp2()
        );
    }
    if gain > noise {
        let [a, b] = optimum.map(f64::exp2);
        let [x, y] = [&space.axes[0].name, &space.axes[1].name];
        return format!("the fit expects {gain:.4} more at {x} {a:.4}, {y} {b:.4}: try it");
    }
    match history[trial].outcome {
        Outcome::Scored { seeds: 1, .. } => {
            "run it with more seeds, and test once: one seed cannot tell it from its neighbours"
        }
        _ => "test it once; what is left to gain is below the noise between seeds",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    fn space() -> Space {
        Space::new(Axis::new("lr", -4.0, 4.0), Axis::new("alpha", -4.0, 4.0)).unwrap()
    }

    fn told(point: Point, score: f64) -> Told {
        Told { point, outcome: Outcome::of(score) }
    }

    fn bowl([x, y]: Point) -> f64 {
        0.9 - 0.01 * (x * x + y * y)
    }

    #[test]
    fn a_lucky_seed_does_not_win_against_its_neighbours() {
        let mut history: Vec<Told> = (-2..=2)
            .flat_map(|x| (-2..=2).map(move |y| [f64::from(x), f64::from(y)]))
            .map(|point| told(point, bowl(point)))
            .collect();
        // Two octaves off, and by luck a little above the optimum.
        let lucky = history.iter().position(|told| told.point == [2.0, 1.0]).unwrap();
        history[lucky].outcome = Outcome::of(0.905);
        let choice = choose(&space(), &history, 0.02).unwrap();
        assert!(choice.point[0].abs() <= 1.0 && choice.point[1].abs() <= 1.0, "{choice:?}");
        assert!(!choice.within_noise.is_empty() && !choice.within_noise.contains(&choice.trial));
        assert!(choice.optimum_std.iter().all(Option::is_some));
    }

    #[test]
    fn an_optimum_at_the_edge_asks_for_more() {
        let history: Vec<Told> = [-1.0, 0.0, 1.0].map(|x| told([x, 0.0], 0.5 + 0.1 * x)).into();
        let choice = choose(&space(), &history, 0.001).unwrap();
        assert_eq!(choice.trial, 2);
        assert!(choice.next.contains("lr 2.0000 is the largest"), "{}", choice.next);
        assert!(choose(&space(), &[], 0.001).is_none());
    }
}

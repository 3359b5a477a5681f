//! Any number of knobs: searchers that treat each knob by itself, and the choice between them and those of two knobs.
//! Not here: what is random, Halton's sequence and Parzen estimators (a file each).

use rand_distr::{Distribution, StandardUniform};
use serde::{Deserialize, Serialize};

use super::halton::radical_inverse;
use super::{Ask, Outcome, Search, Searcher, Told, rng, tpe};
use crate::space::{Axis, Space, SpaceError};

/// Bases of Halton's sequence, one for each knob.
const PRIMES: [usize; 16] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53];

/// A search over any number of knobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Many {
    /// The knobs.
    pub axes: Vec<Axis>,
    /// How points are chosen.
    pub method: Method,
    /// Decides every draw.
    pub seed: u64,
}

/// How [`Many`] chooses points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Uniform.
    Random,
    /// A low-discrepancy sequence.
    Halton,
    /// Tree-structured Parzen estimators, after `startup` random trials.
    Tpe {
        /// Random trials before the first modelled one.
        startup: usize,
    },
}

impl Many {
    /// A search over `axes`.
    ///
    /// # Errors
    /// No axis, too many, or one without width.
    pub fn new(axes: Vec<Axis>, method: Method, seed: u64) -> Result<Self, SpaceError> {
        if axes.is_empty() || axes.len() > PRIMES.len() {
            return Err(SpaceError::Knobs { found: axes.len(), most: PRIMES.len() });
        }
        axes.iter().try_for_each(Axis::check)?;
        Ok(Self { axes, method, seed })
    }

    /// The next point: a function of the configuration and of the trials so far, of nothing else.
    pub fn ask(&self, history: &[(Vec<f64>, Outcome)]) -> Vec<f64> {
        let number = history.len();
        let mut rng = rng(self.seed, if self.method == Method::Halton { 0 } else { number });
        let drawn: Vec<f64> = self.axes.iter().map(|_| StandardUniform.sample(&mut rng)).collect();
        let shares = drawn.iter().enumerate().map(|(axis, &drawn)| match self.method {
            // Number 0 is the corner in every base.
            Method::Halton => (radical_inverse(number + 1, PRIMES[axis]) + drawn).fract(),
            Method::Tpe { startup } if number >= startup => {
                let known = history.iter().map(|(point, outcome)| {
                    let x = point.get(axis).copied().unwrap_or(f64::NAN);
                    (self.axes[axis].share_of(x), outcome)
                });
                tpe::along(known, &mut rng).unwrap_or(drawn)
            }
            Method::Random | Method::Tpe { .. } => drawn,
        });
        let shares: Vec<f64> = shares.collect();
        self.axes.iter().zip(shares).map(|(axis, share)| axis.at_share(share)).collect()
    }
}

/// The search of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Strategy {
    /// Over two knobs.
    Two(Search),
    /// Over any number of them.
    Many(Many),
}

impl From<Search> for Strategy {
    fn from(search: Search) -> Self {
        Strategy::Two(search)
    }
}

impl Strategy {
    /// Its name, as the command takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Strategy::Two(search) => search.name(),
            Strategy::Many(Many { method: Method::Random, .. }) => "random",
            Strategy::Many(Many { method: Method::Halton, .. }) => "halton",
            Strategy::Many(Many { method: Method::Tpe { .. }, .. }) => "tpe",
        }
    }

    /// The knobs.
    pub fn axes(&self) -> &[Axis] {
        match self {
            Strategy::Two(search) => &search.space().axes,
            Strategy::Many(many) => &many.axes,
        }
    }

    /// The space of two knobs, if it is one.
    pub fn space(&self) -> Option<&Space> {
        match self {
            Strategy::Two(search) => Some(search.space()),
            Strategy::Many(_) => None,
        }
    }

    /// The next trial after those in `history`.
    pub fn ask(&self, history: &[(Vec<f64>, Outcome)]) -> Ask<Vec<f64>> {
        match self {
            Strategy::Many(many) => Ask::Try(many.ask(history)),
            Strategy::Two(search) => {
                let told = |(point, outcome): &(Vec<f64>, Outcome)| {
                    let at = |axis: usize| point.get(axis).copied().unwrap_or(f64::NAN);
                    Told { point: [at(0), at(1)], outcome: *outcome }
                };
                match search.ask(&history.iter().map(told).collect::<Vec<_>>()) {
                    Ask::Try(point) => Ask::Try(point.to_vec()),
                    Ask::Wait => Ask::Wait,
                    Ask::Done(reason) => Ask::Done(reason),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(method: Method) -> Many {
        let axes = vec![
            Axis::new("lr", -8.0, 0.0),
            Axis::linear("momentum", 0.5, 1.0),
            Axis::new("wd", -20.0, -4.0),
        ];
        Many::new(axes, method, 7).unwrap()
    }

    fn score(point: &[f64]) -> f64 {
        0.9 - 0.01 * (point[0] + 3.0).powi(2)
            - (point[1] - 0.9).powi(2)
            - 0.001 * (point[2] + 12.0).powi(2)
    }

    fn best_of(method: Method) -> f64 {
        let search = many(method);
        let mut history: Vec<(Vec<f64>, Outcome)> = vec![];
        for _ in 0..60 {
            let point = search.ask(&history);
            for (axis, x) in search.axes.iter().zip(&point) {
                assert!((axis.low..=axis.high).contains(x), "{} {x}", axis.name);
            }
            history.push((point.clone(), Outcome::of(score(&point))));
        }
        for length in 0..history.len() {
            assert_eq!(search.ask(&history[..length]), history[length].0);
        }
        history.iter().filter_map(|(_, outcome)| outcome.score()).fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn three_knobs_are_searched_and_a_study_continued_proposes_the_same() {
        for method in [Method::Random, Method::Halton, Method::Tpe { startup: 10 }] {
            let best = best_of(method);
            assert!(best > 0.86, "{method:?} {best}");
        }
    }

    #[test]
    fn strategies_are_read_back_as_they_were() {
        for strategy in [
            Strategy::Many(many(Method::Tpe { startup: 3 })),
            Strategy::Two(Search::Random(crate::search::Random {
                space: Space::new(Axis::new("lr", 0.0, 1.0), Axis::new("wd", 0.0, 1.0)).unwrap(),
                seed: 0,
            })),
        ] {
            let text = serde_json::to_string(&strategy).unwrap();
            assert_eq!(serde_json::from_str::<Strategy>(&text).unwrap(), strategy, "{text}");
        }
    }

    #[test]
    fn no_knob_and_too_many_are_refused() {
        for count in [0, 17] {
            let axes = vec![Axis::new("x", 0.0, 1.0); count];
            assert!(Many::new(axes, Method::Random, 0).is_err(), "{count}");
        }
    }
}

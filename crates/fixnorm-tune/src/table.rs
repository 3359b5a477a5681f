//! A table of real results over a grid of settings and seeds, from CSV, as a landscape to replay searches on.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::prior::Prior;
use crate::search::Outcome;
use crate::space::{Axis, Point, Space, expected_slope};
use crate::surface::Landscape;

/// A table that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A column that is needed.
    #[error("no column `{0}`; a table has lr or angle, alpha or wd, seed, val_top1 and test_top1")]
    Column(&'static str),
    /// A value that is not a number, or a knob that is not above 0.
    #[error("line {line}, {column}: expected a number above 0, found `{value}`")]
    Value {
        /// Counted from 1, with the header.
        line: usize,
        /// The column.
        column: String,
        /// The text found.
        value: String,
    },
    /// Settings that do not make a grid in log2.
    #[error("{0}")]
    Grid(String),
}

/// One seed of one cell; none where it diverged.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    val: Option<f64>,
    loss: Option<f64>,
    test: Option<f64>,
}

/// A full grid.
#[derive(Clone, Debug)]
pub struct Table {
    space: Space,
    /// By the indices of both axes.
    cells: BTreeMap<[usize; 2], Vec<Run>>,
    /// The worst score of all, for what diverged.
    worst: f64,
    noise: f64,
}

impl Table {
    /// Reads a table as `fixnorm tune --export` writes it.
    ///
    /// # Errors
    /// A missing column, a value that is not a number, cells that are missing or not evenly spaced in log2.
    pub fn from_csv(text: &str) -> Result<Self, TableError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header: Vec<&str> = lines
            .next()
            .map(|(_, line)| line.split(',').map(str::trim).collect())
            .unwrap_or_default();
        let find = |name: &str| header.iter().position(|column| *column == name);
        let (first, first_name) = match (find("angle"), find("lr")) {
            (Some(column), _) => (column, "angle"),
            (None, Some(column)) => (column, "lr"),
            (None, None) => return Err(TableError::Column("lr")),
        };
        let (second, name) = match (find("alpha"), find("wd")) {
            (Some(column), _) => (column, "alpha"),
            (None, Some(column)) => (column, "wd"),
            (None, None) => return Err(TableError::Column("alpha")),
        };
        let val = find("val_top1").ok_or(TableError::Column("val_top1"))?;
        let (loss, test) = (find("val_loss"), find("test_top1"));
        let mut rows = vec![];
        for (number, line) in lines {
            let values: Vec<&str> = line.split(',').map(str::trim).collect();
            let text = |column: usize| values.get(column).copied().unwrap_or_default();
            let knob = |column: usize| match text(column).parse::<f64>() {
                Ok(value) if value > 0.0 && value.is_finite() => Ok(value.log2()),
                _ => Err(TableError::Value {
                    line: number + 1,
                    column: header[column].to_owned(),
                    value: text(column).to_owned(),
                }),
            };
            // Empty where the run diverged.
            let score = |column: usize| match text(column) {
                "" => Ok(None),
                value => match value.parse::<f64>() {
                    Ok(score) => Ok(score.is_finite().then_some(score)),
                    Err(_) => Err(TableError::Value {
                        line: number + 1,
                        column: header[column].to_owned(),
                        value: value.to_owned(),
                    }),
                },
            };
            let optional = |column: Option<usize>| column.map(score).transpose();
            let run = Run {
                val: score(val)?,
                loss: optional(loss)?.flatten(),
                test: optional(test)?.flatten(),
            };
            rows.push(([knob(first)?, knob(second)?], run));
        }
        Self::new([first_name, name], &rows)
    }

    fn new([first, second]: [&str; 2], rows: &[(Point, Run)]) -> Result<Self, TableError> {
        let axis = |i: usize, name: &str| {
            let mut values: Vec<f64> = rows.iter().map(|(point, _)| point[i]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup_by(|a, b| (*a - *b).abs() < 1e-3);
            let (Some(&low), Some(&high), true) = (values.first(), values.last(), values.len() > 1)
            else {
                return Err(TableError::Grid(format!("{name} has fewer than two values")));
            };
            let step = (high - low) / (values.len() - 1) as f64;
            let even = |(i, x): (usize, &f64)| (x - low - step * i as f64).abs() < 0.01 * step;
            if values.iter().enumerate().all(even) {
                Ok(Axis::new(name, low, high).with_step(step))
            } else {
                Err(TableError::Grid(format!("{name} is not evenly spaced in log2")))
            }
        };
        let axes = (axis(0, first)?, axis(1, second)?);
        let space = Space::new(axes.0, axes.1).map_err(|e| TableError::Grid(e.to_string()))?;
        let space = space.with_slope(expected_slope([first, second]));
        let mut cells: BTreeMap<[usize; 2], Vec<Run>> = BTreeMap::new();
        for (point, run) in rows {
            cells.entry(index(&space, *point)).or_default().push(*run);
        }
        let wanted = space.lattice(f64::INFINITY).len();
        if cells.len() != wanted {
            return Err(TableError::Grid(format!("{} of {wanted} cells have a run", cells.len())));
        }
        let scores = rows.iter().filter_map(|(_, run)| run.val);
        let worst = scores.fold(f64::INFINITY, f64::min);
        if !worst.is_finite() {
            return Err(TableError::Grid("no run has a score".to_owned()));
        }
        let mut table = Self { space, cells, worst, noise: 0.0 };
        table.noise = table.measure_noise();
        Ok(table)
    }

    /// Pooled over the better half of the cells in which no seed diverged: where training fails, seeds differ by
    /// more than a choice has to distinguish. With one seed per cell, from second differences along the axes, which
    /// are 0 on a plane and whose variance is six times that of a cell.
    fn measure_noise(&self) -> f64 {
        let mut spreads: Vec<(f64, f64, f64)> = vec![];
        for runs in self.cells.values() {
            let scores: Option<Vec<f64>> = runs.iter().map(|run| run.val).collect();
            let Some(scores) = scores.filter(|scores| scores.len() > 1) else { continue };
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            let squares = scores.iter().map(|score| (score - mean).powi(2)).sum();
            spreads.push((mean, squares, (scores.len() - 1) as f64));
        }
        spreads.sort_by(|a, b| b.0.total_cmp(&a.0));
        spreads.truncate(spreads.len().div_ceil(2));
        let (squares, freedom) =
            spreads.iter().fold((0.0, 0.0), |(s, f), spread| (s + spread.1, f + spread.2));
        if freedom > 0.0 { f64::sqrt(squares / freedom) } else { self.roughness() }
    }

    fn roughness(&self) -> f64 {
        let mean = |cell: [usize; 2]| {
            let runs = self.cells.get(&cell)?;
            let scores: Option<Vec<f64>> = runs.iter().map(|run| run.val).collect();
            scores.map(|scores| scores.iter().sum::<f64>() / scores.len() as f64)
        };
        let mut found: Vec<(f64, f64)> = vec![];
        for &[i, j] in self.cells.keys() {
            for [di, dj] in [[1, 0], [0, 1]] {
                let three = [[i, j], [i + di, j + dj], [i + 2 * di, j + 2 * dj]].map(mean);
                if let [Some(a), Some(b), Some(c)] = three {
                    found.push((a.min(b).min(c), (a - 2.0 * b + c).powi(2) / 6.0));
                }
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(found.len().div_ceil(2));
        let sum: f64 = found.iter().map(|(_, square)| square).sum();
        (sum / found.len().max(1) as f64).sqrt()
    }

    /// The same table with what is expected of its surface.
    pub fn with_prior(mut self, prior: Prior) -> Self {
        self.space.prior = Some(Box::new(prior));
        self
    }

    fn runs(&self, point: Point) -> &[Run] {
        self.cells.get(&index(&self.space, point)).map_or(&[], Vec::as_slice)
    }
}

fn index(space: &Space, point: Point) -> [usize; 2] {
    let point = space.snap(point);
    [0, 1].map(|i| {
        let axis = &space.axes[i];
        ((point[i] - axis.low) / axis.step.unwrap_or(1.0)).round() as usize
    })
}

impl Landscape for Table {
    fn space(&self) -> &Space {
        &self.space
    }

    fn truth(&self, point: Point) -> f64 {
        let runs = self.runs(point);
        let scores = runs.iter().map(|run| run.val.unwrap_or(self.worst));
        scores.sum::<f64>() / runs.len() as f64
    }

    /// The mean of a cell, where all its seeds have one.
    fn test(&self, point: Point) -> Option<f64> {
        let scores: Option<Vec<f64>> = self.runs(point).iter().map(|run| run.test).collect();
        scores.filter(|scores| !scores.is_empty()).map(|s| s.iter().sum::<f64>() / s.len() as f64)
    }

    fn draw(&self, point: Point, rng: &mut ChaCha8Rng) -> Outcome {
        let runs = self.runs(point);
        let drawn = rng.next_u64() % runs.len() as u64;
        let run = runs[drawn as usize];
        let losses: Vec<f64> = run.loss.into_iter().collect();
        run.val.map_or(Outcome::Failed, |val| Outcome::of(val).with_losses(&losses))
    }

    fn best(&self) -> f64 {
        let cells = self.space.lattice(f64::INFINITY).into_iter();
        cells.map(|cell| self.truth(cell)).fold(f64::NEG_INFINITY, f64::max)
    }

    fn noise(&self) -> f64 {
        self.noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    const SMALL: &str = "lr,alpha,seed,val_top1,val_loss,test_top1,diverged\n\
        0.1,1,0,0.80,1,0.79,false\n0.1,1,1,0.82,1,0.81,false\n\
        0.1,2,0,0.70,1,0.70,false\n0.1,2,1,0.70,1,0.70,false\n\
        0.2,1,0,0.60,1,0.60,false\n0.2,1,1,0.60,1,0.60,false\n\
        0.2,2,0,0.50,1,0.50,false\n0.2,2,1,,,,true\n";

    #[test]
    fn reads_cells_and_seeds() {
        let table = Table::from_csv(SMALL).unwrap();
        let best = [0.1f64.log2(), 0.0];
        assert!((table.best() - 0.81).abs() < 1e-12 && table.truth(best) == table.best());
        assert!((table.test(best).unwrap() - 0.80).abs() < 1e-12);
        // The better half: spreads of √0.0002 and 0.
        assert!((table.noise() - 0.01).abs() < 1e-9, "{}", table.noise());
        let bad = [0.2f64.log2(), 1.0];
        assert!((table.truth(bad) - 0.5).abs() < 1e-12 && table.test(bad).is_none());
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let drawn: Vec<Outcome> = (0..20).map(|_| table.draw(bad, &mut rng)).collect();
        assert!(drawn.contains(&Outcome::Failed));
        assert!(drawn.contains(&Outcome::of(0.5).with_losses(&[1.0])));
    }

    #[test]
    fn an_angle_takes_the_place_of_a_learning_rate() {
        let table = Table::from_csv(&SMALL.replace("lr,alpha", "angle,alpha")).unwrap();
        assert_eq!(table.space().axes[0].name, "angle");
        assert_eq!(table.space().slope, 0.0);
        assert_eq!(Table::from_csv(SMALL).unwrap().space().slope, crate::space::ALPHA_SLOPE);
    }

    #[test]
    fn one_seed_per_cell_gets_its_noise_from_second_differences() {
        let mut text = "angle,alpha,seed,val_top1\n".to_owned();
        for i in 0..5 {
            for j in 0..5 {
                // A plane, and ±0.01 in turn: second differences of ±0.04.
                let score = 0.5 + 0.01 * f64::from(i) + 0.01 * f64::from((i + j) % 2 * 2 - 1);
                text += &format!("{},{},0,{score}\n", f64::from(i).exp2(), f64::from(j).exp2());
            }
        }
        let noise = Table::from_csv(&text).unwrap().noise();
        assert!((noise - 0.04 / 6f64.sqrt()).abs() < 1e-9, "{noise}");
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        let without = |line: &str| SMALL.replace(line, "");
        for (text, part) in [
            (String::new(), "no column `lr`"),
            (SMALL.replace("alpha", "beta"), "no column `alpha`"),
            (SMALL.replace("val_top1", "top1"), "no column `val_top1`"),
            (
                SMALL.replace("0.80", "high"),
                "line 2, val_top1: expected a number above 0, found `high`",
            ),
            (
                SMALL.replace("0.1,1,0", "-0.1,1,0"),
                "line 2, lr: expected a number above 0, found `-0.1`",
            ),
            (
                without("0.2,2,0,0.50,1,0.50,false\n").replace("0.2,2,1,,,,true\n", ""),
                "3 of 4 cells",
            ),
            (format!("{SMALL}0.9,1,0,0.5,1,0.5,false\n"), "not evenly spaced"),
        ] {
            let error = Table::from_csv(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

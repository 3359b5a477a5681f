//! What earlier tables say about surfaces over two knobs: the prior of the posterior over ridges.
//! Not here: the surfaces themselves (`ridge.rs`), the fit of these numbers to tables (`benches/tables/fit_prior.py`).

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of each number of a surface; of widths and saturation, the median and the standard deviation of
/// the natural logarithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    /// The best setting, in octaves from the first trial.
    pub place: [(f64, f64); 2],
    /// Octaves by which the best first knob moves for each octave of the second.
    pub slope: (f64, f64),
    /// Octaves over which a hundredth of accuracy is lost, below and above the best first knob.
    pub across: [(f64, f64); 2],
    /// The same of the second knob.
    pub along: [(f64, f64); 2],
    /// Accuracy at which losses saturate.
    pub saturation: (f64, f64),
}

impl Prior {
    /// The prior of two knobs by their names; none for knobs whose surfaces are not known well enough.
    ///
    /// Fitted to single tables the numbers were, with (lr, α) of ResNet-8 and ResNet-20: slope −1.1 and −0.6, w 1.1 and 1.1
    /// below, 2.0 and 0.7 above, w' 1.3 and 1.2 below, 1.6 and 1.2 above, S 1.9 and 0.16; with (angle, α): slope −0.2, w 1.1
    /// and 2.1, w' 1.4 and 3.0, S 0.39. The start measured for (lr, α) lay 0.1 to 1.3 octaves above the best rate and 0.7
    /// to 1.5 below the best α on four settings. Four tables are few: the spreads are wider than those of the fits.
    pub fn of(names: [&str; 2]) -> Option<Self> {
        let shape = Prior {
            place: [(0.0, 1.7); 2],
            slope: (0.0, 0.25),
            across: [(1.3, 0.35), (1.0, 0.6)],
            along: [(1.6, 0.4); 2],
            saturation: (0.4, 1.0),
        };
        match names {
            ["lr", "alpha"] => {
                Some(Prior { place: [(-0.5, 1.7), (1.0, 1.7)], slope: (-0.8, 0.3), ..shape })
            }
            ["angle", "alpha"] => Some(shape),
            _ => None,
        }
    }
}

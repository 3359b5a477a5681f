//! How a gradient and the optimizer's states become a direction: one form for every base update.
//! Not here: step length and norms (`mod.rs`), the coefficients of SGD, RMSProp, Adam (crate `fixnorm`).

/// The coefficients of one step of a base update.
///
/// ```text
/// s ← s + inflow·(g² − s)                         where there is a scaling
/// u ← momentum·u + gain·g                         or gain·g/√(s + ε)        (Scaling::Gradient)
/// d = output·u + lookahead·g                      or that/(root·√s + ε)     (Scaling::Direction)
/// ```
///
/// `u` is the first state, `s` the second, `d` the direction; the caller steps along −d.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseStep {
    /// Factor of the first state in its recurrence.
    pub momentum: f32,
    /// Factor of the gradient in that recurrence.
    pub gain: f32,
    /// Factor of the first state in the direction.
    pub output: f32,
    /// Factor of the gradient in the direction: Nesterov's look-ahead.
    pub lookahead: f32,
    /// The numerator over the root of the mean squared gradient.
    pub scaling: Scaling,
}

/// The numerator over the root of the mean squared gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Nothing; there is no second state.
    None,
    /// The gradient, before the momentum: RMSProp.
    Gradient {
        /// 1 minus the decay of the average of squares.
        inflow: f32,
        /// ε, inside the root.
        epsilon: f32,
    },
    /// The direction, after the momentum: Adam.
    Direction {
        /// 1 minus the decay of the average of squares.
        inflow: f32,
        /// Factor of the root: one over that of the bias correction.
        root: f32,
        /// ε, outside the root.
        epsilon: f32,
    },
}

impl BaseStep {
    /// Whether there is a second state.
    pub fn has_second(&self) -> bool {
        self.scaling != Scaling::None
    }

    /// Whether the direction is the first state itself, and takes no memory of its own.
    pub fn direction_is_first(&self) -> bool {
        self.output == 1.0
            && self.lookahead == 0.0
            && !matches!(self.scaling, Scaling::Direction { .. })
    }

    /// Advances the states by one step; where the direction is not the first state, it replaces `grad`.
    #[inline(always)]
    pub(super) fn advance(
        &self,
        weight: &[f32],
        grad: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        l2: f32,
    ) {
        if l2 != 0.0 {
            for (g, &w) in grad.iter_mut().zip(weight) {
                *g += l2 * w;
            }
        }
        let Self { momentum, gain, output, lookahead, scaling } = *self;
        match scaling {
            Scaling::None => {
                for (u, &g) in first.iter_mut().zip(&*grad) {
                    *u = momentum * *u + gain * g;
                }
            }
            Scaling::Gradient { inflow, epsilon } => {
                for ((s, u), &g) in second.iter_mut().zip(&mut *first).zip(&*grad) {
                    *s += inflow * (g * g - *s);
                    *u = momentum * *u + gain * g / (*s + epsilon).sqrt();
                }
            }
            Scaling::Direction { inflow, root, epsilon } => {
                for ((s, u), g) in second.iter_mut().zip(&mut *first).zip(&mut *grad) {
                    *s += inflow * (*g * *g - *s);
                    *u = momentum * *u + gain * *g;
                    *g = (output * *u + lookahead * *g) / (s.sqrt() * root + epsilon);
                }
                return;
            }
        }
        if !self.direction_is_first() {
            for (g, &u) in grad.iter_mut().zip(&*first) {
                *g = output * u + lookahead * *g;
            }
        }
    }

    /// [`advance`](Self::advance) of one element in `f64`, from (u, s): the next (u, s) and the direction.
    pub(super) fn advance_element(&self, g: f64, u: f64, s: f64) -> (f64, f64, f64) {
        let Self { momentum, gain, output, lookahead, scaling } = *self;
        let [momentum, gain, output, lookahead] =
            [momentum, gain, output, lookahead].map(f64::from);
        match scaling {
            Scaling::None => {
                let u = momentum * u + gain * g;
                (u, s, output * u + lookahead * g)
            }
            Scaling::Gradient { inflow, epsilon } => {
                let s = s + f64::from(inflow) * (g * g - s);
                let u = momentum * u + gain * g / (s + f64::from(epsilon)).sqrt();
                (u, s, output * u + lookahead * g)
            }
            Scaling::Direction { inflow, root, epsilon } => {
                let s = s + f64::from(inflow) * (g * g - s);
                let u = momentum * u + gain * g;
                let scale = s.sqrt() * f64::from(root) + f64::from(epsilon);
                (u, s, (output * u + lookahead * g) / scale)
            }
        }
    }
}

/// The states of a weight: slices as long as the weight, the second one empty where the base update has none.
#[derive(Debug)]
pub struct States<'a> {
    /// Momentum buffer, or Adam's first moment.
    pub first: &'a mut [f32],
    /// Average of squared gradients.
    pub second: &'a mut [f32],
}

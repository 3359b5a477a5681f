//! The base updates: how a gradient and the optimizer's states become a direction.
//! Not here: step length and norms (`mod.rs`).

/// A base update and its states, each as long as the weight.
#[derive(Debug)]
pub enum Base<'a> {
    /// `u ← μ·u + g`; the direction is `u`, or `g + μ·u` with Nesterov's look-ahead.
    /// No dampening, as PyTorch's default.
    Sgd {
        /// `u`.
        velocity: &'a mut [f32],
        /// μ.
        momentum: f32,
        /// Look ahead.
        nesterov: bool,
    },
    /// TensorFlow's form: `s ← α·s + (1 − α)·g²`, `u ← μ·u + lr·g/√(s + ε)`; the direction is `u`,
    /// which already holds the learning rate. `s` starts at one.
    RmsProp {
        /// `s`.
        square_average: &'a mut [f32],
        /// `u`.
        velocity: &'a mut [f32],
        /// α.
        alpha: f32,
        /// μ.
        momentum: f32,
        /// ε, inside the square root.
        epsilon: f32,
        /// Learning rate of this step.
        lr: f32,
    },
    /// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`; the direction is
    /// `(m/c₁)/(√(v/c₂) + ε)` with the bias corrections `cᵢ = 1 − βᵢᵗ`.
    Adam {
        /// `m`.
        first_moment: &'a mut [f32],
        /// `v`.
        second_moment: &'a mut [f32],
        /// β₁ and β₂.
        betas: (f32, f32),
        /// ε, outside the square root.
        epsilon: f32,
        /// c₁ and c₂.
        corrections: (f64, f64),
    },
}

impl Base<'_> {
    /// The states in parts of `len` elements, the last one possibly shorter.
    pub(super) fn parts(&mut self, len: usize) -> Vec<Base<'_>> {
        match self {
            Base::Sgd { velocity, momentum, nesterov } => (velocity.chunks_mut(len))
                .map(|velocity| Base::Sgd { velocity, momentum: *momentum, nesterov: *nesterov })
                .collect(),
            Base::RmsProp { square_average, velocity, alpha, momentum, epsilon, lr } => {
                (square_average.chunks_mut(len).zip(velocity.chunks_mut(len)))
                    .map(|(square_average, velocity)| Base::RmsProp {
                        square_average,
                        velocity,
                        alpha: *alpha,
                        momentum: *momentum,
                        epsilon: *epsilon,
                        lr: *lr,
                    })
                    .collect()
            }
            Base::Adam { first_moment, second_moment, betas, epsilon, corrections } => {
                (first_moment.chunks_mut(len).zip(second_moment.chunks_mut(len)))
                    .map(|(first_moment, second_moment)| Base::Adam {
                        first_moment,
                        second_moment,
                        betas: *betas,
                        epsilon: *epsilon,
                        corrections: *corrections,
                    })
                    .collect()
            }
        }
    }

    /// Advances the states of the elements from `start` on, one for each of `grad`.
    #[inline(always)]
    pub(super) fn advance(&mut self, start: usize, weight: &[f32], grad: &mut [f32], l2: f32) {
        let range = start..start + grad.len();
        if l2 != 0.0 {
            for (g, &w) in grad.iter_mut().zip(weight) {
                *g += l2 * w;
            }
        }
        match self {
            Base::Sgd { velocity, momentum, nesterov } => {
                let momentum = *momentum;
                for (u, &g) in velocity[range.clone()].iter_mut().zip(&*grad) {
                    *u = momentum * *u + g;
                }
                if *nesterov {
                    for (g, &u) in grad.iter_mut().zip(&velocity[range]) {
                        *g += momentum * u;
                    }
                }
            }
            Base::RmsProp { square_average, velocity, alpha, momentum, epsilon, lr } => {
                let (alpha, momentum, epsilon, lr) = (*alpha, *momentum, *epsilon, *lr);
                let states = square_average[range.clone()].iter_mut().zip(&mut velocity[range]);
                for ((s, u), &g) in states.zip(&*grad) {
                    *s += (1.0 - alpha) * (g * g - *s);
                    *u = momentum * *u + lr * g / (*s + epsilon).sqrt();
                }
            }
            Base::Adam { first_moment, second_moment, betas, epsilon, corrections } => {
                let ((beta1, beta2), epsilon) = (*betas, *epsilon);
                let step = (1.0 / corrections.0) as f32;
                let root = (1.0 / corrections.1.sqrt()) as f32;
                let states = first_moment[range.clone()].iter_mut().zip(&mut second_moment[range]);
                for ((m, v), g) in states.zip(grad) {
                    *m += (1.0 - beta1) * (*g - *m);
                    *v = beta2 * *v + (1.0 - beta2) * *g * *g;
                    *g = step * *m / (v.sqrt() * root + epsilon);
                }
            }
        }
    }

    /// The direction of the last [`advance`](Self::advance), a state or what is left in `grad`.
    #[inline(always)]
    pub(super) fn direction<'s>(&'s self, grad: &'s [f32]) -> &'s [f32] {
        match self {
            Base::Sgd { velocity, nesterov: false, .. } | Base::RmsProp { velocity, .. } => {
                velocity
            }
            Base::Sgd { .. } | Base::Adam { .. } => grad,
        }
    }

    pub(super) fn lengths(&self) -> [usize; 2] {
        match self {
            Base::Sgd { velocity, .. } => [velocity.len(); 2],
            Base::RmsProp { square_average, velocity, .. } => {
                [square_average.len(), velocity.len()]
            }
            Base::Adam { first_moment, second_moment, .. } => {
                [first_moment.len(), second_moment.len()]
            }
        }
    }
}

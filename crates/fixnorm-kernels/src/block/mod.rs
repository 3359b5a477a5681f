//! Blocks: convolutions with their batch norms and activations in a chain, a gate, a shortcut; forward
//! and backward as one operation each.
//! Not here: a single convolution (`conv`), the gate's two layers (`squeeze.rs`), the ends (`ends.rs`).
//!
//! ```text
//! yᵢ  = conv(wᵢ, aᵢ₋₁)                     a₀ = x
//! aᵢ  = activation(norm(yᵢ))               computed by the kernel that reads it, never stored
//! a'  = a·gate(mean of a over the image)   before the last convolution, if there is a squeeze
//! out = activation(survival·norm(y_last) + shortcut(x))
//! ```
//!
//! A training step keeps x and the yᵢ of a block: the backward pass computes normalization and activation again. To save
//! memory it can compute the yᵢ again, too ([`Block::recompute`]). It does not store dyᵢ either: the kernel that reads dyᵢ
//! computes it from the masked gradient and yᵢ.

mod ends;
mod squeeze;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::borrow::Cow;

use crate::activation::Activation;
use crate::conv::{self, ConvShape, Wanted};
use crate::isa::Isa;
use crate::norm::{Affine, GradSums, Moments, NormGrad};
use crate::profile::timed;
use crate::real::{Real, bf16, same_type};
use crate::rows::{Gradient, Input};
use squeeze::SqueezeSaved;
pub use squeeze::{Squeeze, SqueezeGrad};

/// Statistics of a normalization.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// Computed from the current batch.
    Batch,
    /// Given: running means and variances, both `[c_out]`.
    Given(&'a [f32], &'a [f32]),
}

/// A convolution, its normalization and activation.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Sizes.
    pub shape: ConvShape,
    /// `[c_out, c_in/groups, kh, kw]`.
    pub weight: &'a [f32],
    /// `[c_out]`.
    pub gamma: &'a [f32],
    /// `[c_out]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// Source of mean and variance.
    pub statistics: Statistics<'a>,
    /// The activation after it; for a block's last stage, after the shortcut.
    pub activation: Activation,
}

/// Added to a block's result before its last activation.
#[derive(Clone, Copy, Debug)]
pub enum Shortcut<'a> {
    /// Nothing.
    None,
    /// The input: every `stride`-th pixel, channels that it lacks being zero.
    Identity {
        /// Input pixels to a result's pixel, in both directions.
        stride: usize,
    },
    /// A convolution of the input with its normalization, without activation.
    Projection(Stage<'a>),
}

/// Configuration and parameters of a block.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// At least one; each reads the result of the one before.
    pub stages: Vec<Stage<'a>>,
    /// Gates the input of the last stage, of at least two.
    pub squeeze: Option<Squeeze<'a>>,
    /// The shortcut around the stages.
    pub shortcut: Shortcut<'a>,
    /// Factor of each sample's result before the shortcut is added, `[n]`: 0 or 1/(1 − rate) of a drop
    /// path.
    pub survival: Option<&'a [f32]>,
}

/// What a run through a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// The result, and what the backward pass needs.
    Forward,
    /// What the backward pass needs, without the result.
    Recompute,
    /// The result alone.
    Infer,
}

/// Results of the forward pass that the backward pass needs.
#[derive(Clone, Debug)]
pub struct Saved<T> {
    stages: Vec<SavedStage<T>>,
    projection: Option<SavedStage<T>>,
    squeeze: Option<SqueezeSaved>,
}

#[derive(Clone, Debug)]
struct SavedStage<T> {
    y: Vec<T>,
    moments: Moments,
}

impl<T: Real> Saved<T> {
    /// The same values, whose format the caller knows.
    fn same<U: Real>(&self) -> &Saved<U> {
        (self as &dyn Any).downcast_ref().expect("both formats are the same one")
    }
}

impl<T> Saved<T> {
    /// The statistics of each stage, the projection's last.
    pub fn moments(&self) -> impl Iterator<Item = &Moments> {
        self.stages.iter().chain(&self.projection).map(|stage| &stage.moments)
    }
}

/// The gradients of a stage's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct StageGrad {
    /// In the weight's layout.
    pub dweight: Vec<f32>,
    /// `[c_out]`.
    pub dgamma: Vec<f32>,
    /// `[c_out]`.
    pub dbeta: Vec<f32>,
}

/// The gradients of a block.
#[derive(Clone, Debug)]
pub struct BlockGrad<T> {
    /// Gradient of the input; empty if it was not wanted.
    pub dx: Vec<T>,
    /// Gradients of each stage.
    pub stages: Vec<StageGrad>,
    /// Gradients of the projection.
    pub projection: Option<StageGrad>,
    /// Gradients of the squeeze.
    pub squeeze: Option<SqueezeGrad>,
}

impl Stage<'_> {
    fn affine(&self, moments: &Moments, activation: Activation) -> Affine {
        Affine::new(moments, self.gamma, self.beta, self.epsilon, activation)
    }

    fn run<T: Real>(&self, isa: Isa, x: Input<'_, T>) -> SavedStage<T> {
        let wants = matches!(self.statistics, Statistics::Batch);
        let (y, moments) = conv::forward(isa, &self.shape, x, self.weight, wants);
        let moments = moments.unwrap_or_else(|| match self.statistics {
            Statistics::Given(mean, var) => Moments {
                count: y.len() / self.shape.c_out,
                mean: mean.to_vec(),
                var: var.to_vec(),
            },
            Statistics::Batch => unreachable!("moments were wanted"),
        });
        SavedStage { y, moments }
    }

    fn norm_grad(&self, moments: &Moments, sums: &GradSums) -> NormGrad {
        let frozen = matches!(self.statistics, Statistics::Given(..));
        NormGrad::new(moments, self.gamma, self.epsilon, sums, frozen)
    }
}

impl StageGrad {
    fn new(dweight: Vec<f32>, norm: NormGrad) -> Self {
        Self { dweight, dgamma: norm.dgamma, dbeta: norm.dbeta }
    }
}

impl Block<'_> {
    fn last(&self) -> &Stage<'_> {
        self.stages.last().expect("a block has a stage")
    }

    /// Returns the result, and what the backward pass needs.
    ///
    /// # Shapes
    /// `x`: that of the first stage's input; the result that of the last stage's.
    ///
    /// # Panics
    /// If sizes do not fit each other.
    pub fn forward<T: Real>(&self, isa: Isa, x: &[T]) -> (Vec<T>, Saved<T>) {
        self.run_format(isa, x, Run::Forward)
    }

    /// Returns what [`forward`](Self::forward) saves for the backward pass, the same values to the bit.
    pub fn recompute<T: Real>(&self, isa: Isa, x: &[T]) -> Saved<T> {
        self.run_format(isa, x, Run::Recompute).1
    }

    /// Returns the result alone; memory of a stage is freed as soon as the next one has read it.
    pub fn infer<T: Real>(&self, isa: Isa, x: &[T]) -> Vec<T> {
        self.run_format(isa, x, Run::Infer).0
    }

    // Both formats are compiled in this crate, by functions that are not generic. The generic ones would be compiled in
    // every crate that calls them, which took minutes each.
    fn run_format<T: Real>(&self, isa: Isa, x: &[T], what: Run) -> (Vec<T>, Saved<T>) {
        match (f32::same(x), bf16::same(x)) {
            (Some(x), _) => same_type(self.run_f32(isa, x, what)),
            (_, Some(x)) => same_type(self.run_bf16(isa, x, what)),
            _ => unreachable!("there are two formats"),
        }
    }

    #[inline(never)]
    fn run_f32(&self, isa: Isa, x: &[f32], what: Run) -> (Vec<f32>, Saved<f32>) {
        self.run(isa, x, what)
    }

    #[inline(never)]
    fn run_bf16(&self, isa: Isa, x: &[bf16], what: Run) -> (Vec<bf16>, Saved<bf16>) {
        self.run(isa, x, what)
    }

    fn run<T: Real>(&self, isa: Isa, x: &[T], what: Run) -> (Vec<T>, Saved<T>) {
        assert!(self.squeeze.is_none() || self.stages.len() > 1, "a squeeze follows a stage");
        let mut saved = Saved { stages: Vec::new(), projection: None, squeeze: None };
        let mut affine = None;
        for (i, stage) in self.stages.iter().enumerate() {
            let before = saved.stages.last();
            let last = i + 1 == self.stages.len();
            let input = before.map_or(x, |before: &SavedStage<T>| &before.y[..]);
            if let (Some(squeeze), Some(affine), true) = (&self.squeeze, &affine, last) {
                let name = || {
                    format!(
                        "squeeze {}x{} {} forward",
                        stage.shape.h, stage.shape.w, stage.shape.c_in
                    )
                };
                saved.squeeze = Some(timed(name, 0, stage.shape.input_len() * T::BYTES, || {
                    squeeze.forward(isa, input, stage.shape.n, affine)
                }));
            }
            let gate = saved.squeeze.as_ref().map(SqueezeSaved::gate);
            let own = stage.run(isa, Input { data: input, affine: affine.as_ref(), gate });
            affine = Some(stage.affine(&own.moments, stage.activation));
            if what == Run::Infer {
                saved.stages.clear();
            }
            saved.stages.push(own);
        }
        if let Shortcut::Projection(stage) = &self.shortcut {
            saved.projection = Some(stage.run(isa, Input::plain(x)));
        }
        if what == Run::Recompute {
            return (Vec::new(), saved);
        }
        let last = self.last().shape;
        let bytes = (2 + usize::from(!matches!(self.shortcut, Shortcut::None)))
            * last.output_len()
            * T::BYTES;
        let name = || format!("end {}x{} {} forward", last.h_out, last.w_out, last.c_out);
        let out = timed(name, 0, bytes, || ends::forward(isa, &self.end(x, &saved)));
        (out, saved)
    }

    /// The inputs of the block's end.
    fn end<'a, T: Real>(&'a self, x: &'a [T], saved: &'a Saved<T>) -> ends::End<'a, T> {
        let last = self.last();
        let own = saved.stages.last().expect("a block has a stage");
        ends::End {
            y: &own.y,
            affine: last.affine(&own.moments, last.activation),
            survival: self.survival,
            shape: last.shape,
            shortcut: match (&self.shortcut, &saved.projection) {
                (Shortcut::Identity { stride }, _) => {
                    let first = &self.stages[0].shape;
                    ends::Added::Input { x, h: first.h, w: first.w, c: first.c_in, stride: *stride }
                }
                (Shortcut::Projection(stage), Some(own)) => ends::Added::Projection {
                    y: &own.y,
                    affine: stage.affine(&own.moments, Activation::Identity),
                },
                _ => ends::Added::Nothing,
            },
        }
    }

    /// Returns the gradients, given that of the result. That of the input is computed if `wants_dx` is set.
    ///
    /// # Panics
    /// If sizes do not fit each other, or `saved` is of another block.
    pub fn backward<T: Real>(
        &self,
        isa: Isa,
        x: &[T],
        saved: &Saved<T>,
        dout: &[T],
        wants_dx: bool,
    ) -> BlockGrad<T> {
        match (f32::same(x), bf16::same(x)) {
            (Some(x), _) => {
                let dout = f32::same(dout).expect("one format");
                same_type(self.backward_f32(isa, x, saved.same(), dout, wants_dx))
            }
            (_, Some(x)) => {
                let dout = bf16::same(dout).expect("one format");
                same_type(self.backward_bf16(isa, x, saved.same(), dout, wants_dx))
            }
            _ => unreachable!("there are two formats"),
        }
    }

    #[inline(never)]
    fn backward_f32(
        &self,
        isa: Isa,
        x: &[f32],
        saved: &Saved<f32>,
        dout: &[f32],
        wants_dx: bool,
    ) -> BlockGrad<f32> {
        self.run_backward(isa, x, saved, dout, wants_dx)
    }

    #[inline(never)]
    fn backward_bf16(
        &self,
        isa: Isa,
        x: &[bf16],
        saved: &Saved<bf16>,
        dout: &[bf16],
        wants_dx: bool,
    ) -> BlockGrad<bf16> {
        self.run_backward(isa, x, saved, dout, wants_dx)
    }

    fn run_backward<T: Real>(
        &self,
        isa: Isa,
        x: &[T],
        saved: &Saved<T>,
        dout: &[T],
        wants_dx: bool,
    ) -> BlockGrad<T> {
        let last = self.last().shape;
        let name = || format!("end {}x{} {} backward", last.h_out, last.w_out, last.c_out);
        let bytes = 3 * last.output_len() * T::BYTES;
        let end =
            timed(name, 0, bytes, || ends::backward(isa, &self.end(x, saved), dout, wants_dx));
        let mut grad =
            BlockGrad { dx: Vec::new(), stages: Vec::new(), projection: None, squeeze: None };
        let mut g = Cow::Borrowed(end.norm());
        let mut sums = end.sums.clone();
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let own = &saved.stages[i];
            let norm = stage.norm_grad(&own.moments, &sums);
            let dy = Gradient { g: &g, norm: Some((&own.y[..], &norm)) };
            let Some(before) = i.checked_sub(1) else {
                let wanted = match (wants_dx, &self.shortcut) {
                    (false, _) => Wanted::Nothing,
                    (true, Shortcut::Identity { .. }) => Wanted::Plain(Some(end.identity())),
                    (true, _) => Wanted::Plain(None),
                };
                let own =
                    conv::backward(isa, &stage.shape, Input::plain(x), stage.weight, dy, wanted);
                grad.dx = own.dx;
                grad.stages.push(StageGrad::new(own.dweight, norm));
                continue;
            };
            let affine = self.stages[before]
                .affine(&saved.stages[before].moments, self.stages[before].activation);
            let squeeze = match (&self.squeeze, &saved.squeeze) {
                (Some(squeeze), Some(saved)) if i + 1 == self.stages.len() => {
                    Some((squeeze, saved))
                }
                _ => None,
            };
            let input = Input {
                data: &saved.stages[before].y[..],
                affine: Some(&affine),
                gate: squeeze.map(|(_, saved)| saved.gate()),
            };
            let wanted = if squeeze.is_some() { Wanted::Gated } else { Wanted::Masked };
            let own = conv::backward(isa, &stage.shape, input, stage.weight, dy, wanted);
            let mut dx = own.dx;
            sums = match (squeeze, own.sums, own.dgate) {
                (Some((squeeze, saved)), _, Some(dgate)) => {
                    let name = || {
                        format!(
                            "squeeze {}x{} {} backward",
                            stage.shape.h, stage.shape.w, stage.shape.c_in
                        )
                    };
                    let bytes = 3 * stage.shape.input_len() * T::BYTES;
                    let (squeezed, sums) = timed(name, 0, bytes, || {
                        squeeze.backward(isa, saved, input, &dgate, &mut dx)
                    });
                    grad.squeeze = Some(squeezed);
                    sums
                }
                (_, Some(sums), _) => sums,
                _ => unreachable!("a masked gradient comes with its sums"),
            };
            grad.stages.push(StageGrad::new(own.dweight, norm));
            g = Cow::Owned(dx);
        }
        grad.stages.reverse();
        if let (Shortcut::Projection(stage), Some(own)) = (&self.shortcut, &saved.projection) {
            let sums = end.projection_sums.as_ref().expect("a projection comes with its sums");
            let norm = stage.norm_grad(&own.moments, sums);
            let dy = Gradient { g: end.projection(), norm: Some((&own.y[..], &norm)) };
            let wanted = if wants_dx { Wanted::Plain(Some(&grad.dx[..])) } else { Wanted::Nothing };
            let own = conv::backward(isa, &stage.shape, Input::plain(x), stage.weight, dy, wanted);
            grad.dx = own.dx;
            grad.projection = Some(StageGrad::new(own.dweight, norm));
        }
        grad
    }
}

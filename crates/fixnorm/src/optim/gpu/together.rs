//! The steps of all parameters of a model as one operation. Burn's optimizer of a module steps one parameter after the other, so
//! the model passes through it twice: the first time its tensors are collected, the second time each parameter gets its result.

use std::cell::RefCell;
use std::collections::VecDeque;

use burn::backend::DispatchDevice;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};

use super::{Pending, Stepped, take};
use crate::optim::plan::StepPlan;
use crate::optim::{NormOptimizer, NormState};

/// What the steps of this thread are part of.
#[derive(Default)]
enum Pass {
    /// Each is taken by itself.
    #[default]
    Alone,
    /// They are collected, those of parameters on one device; none for a step that was taken.
    Collect(Vec<Option<Pending>>, Option<Device>),
    /// Their results are handed out in the same order.
    HandOut(VecDeque<Option<Stepped>>),
}

thread_local! {
    static PASS: RefCell<Pass> = RefCell::default();
}

/// Ends a pass, also when it panics.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        PASS.take();
    }
}

/// Whether a parameter of `model` is on a device with kernels of ours.
pub(in crate::optim) fn has_kernels_for<M: Module>(model: &M) -> bool {
    model
        .devices()
        .iter()
        .any(|device| matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_)))
}

/// The model after a step of all its parameters with a gradient.
pub(in crate::optim) fn step<M: Module>(
    optimizer: &mut ModuleOptimizer,
    lr: ModuleLearningRate,
    model: M,
    grads: GradientsParams,
) -> M {
    let mut same = Same { grads: &grads, copies: GradientsParams::new() };
    model.visit(&mut same);
    let copies = same.copies;
    let _ended = Ended;
    PASS.set(Pass::Collect(vec![], None));
    let model = optimizer.step(lr.clone(), model, grads);
    let Pass::Collect(steps, _) = PASS.take() else { unreachable!("collected until now") };
    let taken: Vec<bool> = steps.iter().map(Option::is_some).collect();
    let mut results = take(steps.into_iter().flatten().collect());
    let results = taken.into_iter().map(|taken| if taken { results.next() } else { None });
    PASS.set(Pass::HandOut(results.collect()));
    optimizer.step(lr, model, copies)
}

/// Copies of the gradients of a model.
struct Same<'a> {
    grads: &'a GradientsParams,
    copies: GradientsParams,
}

impl ModuleVisitor for Same<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.copies.register(param.id, grad);
        }
    }
}

/// What to do about a step that begins.
pub(in crate::optim) enum Turn {
    /// Take or collect it.
    Step,
    /// Nothing: it was taken when others were collected.
    Keep,
    /// Use its result.
    Take(Stepped),
}

/// Begins the step of the next parameter.
pub(in crate::optim) fn begin_step() -> Turn {
    PASS.with_borrow_mut(|pass| match pass {
        Pass::Alone => Turn::Step,
        Pass::Collect(steps, _) => {
            steps.push(None);
            Turn::Step
        }
        Pass::HandOut(results) => results
            .pop_front()
            .expect("both passes are over the same")
            .map_or(Turn::Keep, Turn::Take),
    })
}

impl NormOptimizer {
    /// The step by kernels of this crate: taken at once, or collected, with the gradient in the place of weight and moments.
    pub(in crate::optim) fn step_or_collect<const D: usize>(
        &self,
        plan: StepPlan,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let device = w.device();
        let collects = PASS.with_borrow_mut(|pass| match pass {
            Pass::Collect(_, on) => *on.get_or_insert_with(|| device.clone()) == device,
            _ => false,
        });
        if !collects {
            return self.step_on_gpu(plan, w, grad, state);
        }
        let kept = state.without_moments(&grad);
        let step = self.pending(plan, w, grad.clone(), state);
        PASS.with_borrow_mut(|pass| {
            if let Pass::Collect(steps, _) = pass {
                *steps.last_mut().expect("the step has begun") = Some(step);
            }
        });
        (grad, kept)
    }
}

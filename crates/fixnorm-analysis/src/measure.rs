//! Norms, effective learning rates and angular updates of a model in training.
//!
//! A [`WeightSnapshot`] is taken before a step and compared after it: it works with any optimizer,
//! and costs one copy of the weights on the steps that are measured and nothing on the others.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use fixnorm_kernels::update::dot;
use serde::{Deserialize, Deserializer, Serialize};

use fixnorm::follow_path;
use fixnorm::params::Path;
use fixnorm::{Role, Roles};

/// One weight at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMeasure {
    /// Path of the weight.
    pub path: String,
    /// Its role.
    pub role: Role,
    /// ‖w_t‖, before the step.
    #[serde(deserialize_with = "nan_if_null")]
    pub norm: f64,
    /// lr/‖w_t‖².
    #[serde(deserialize_with = "nan_if_null")]
    pub effective_lr: f64,
    /// The angle between w_t and w_{t+1}, in radians.
    #[serde(deserialize_with = "nan_if_null")]
    pub angular_update: f64,
    /// ‖∇L(w_t)‖, where the gradient was available; ‖w_t‖ times it is the norm at ‖w‖ = 1 of a weight that is
    /// scale-invariant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// The angular update that weight decay settles at, where there is decay on the weight and theory says
    /// something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equilibrium: Option<f64>,
}

/// JSON has no NaN: what is measured on a diverged run is written as `null`.
fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Norms of the weights that `roles` lists, by path, in the order of the model's fields.
pub fn weight_norms<M: Module>(model: &M, roles: &Roles) -> Vec<(String, f64)> {
    let snapshot = WeightSnapshot::take(model, roles);
    snapshot.norms().map(|(path, norm)| (path.to_owned(), norm)).collect()
}

/// Norms of the weights' gradients, by path.
pub fn gradient_norms<M: Module>(
    model: &M,
    roles: &Roles,
    grads: &GradientsParams,
) -> Vec<(String, f64)> {
    let mut visitor = Gradients { path: Path::default(), roles, grads, found: vec![] };
    model.visit(&mut visitor);
    visitor.found
}

/// The weights of a model before a step.
#[derive(Clone, Debug)]
pub struct WeightSnapshot {
    weights: Vec<(String, Role, Vec<f32>)>,
}

impl WeightSnapshot {
    /// Copies the weights (not gains and biases) that `roles` lists.
    pub fn take<M: Module>(model: &M, roles: &Roles) -> Self {
        let mut visitor = Weights { path: Path::default(), roles, found: vec![] };
        model.visit(&mut visitor);
        Self { weights: visitor.found }
    }

    /// Path and norm of every weight.
    pub fn norms(&self) -> impl Iterator<Item = (&str, f64)> {
        self.weights.iter().map(|(path, _, w)| (path.as_str(), dot(w, w).sqrt()))
    }

    /// Measures of each weight for the step from here to `after`, at the learning rate that `lr` gives for its path.
    pub fn measure<M: Module>(
        &self,
        after: &M,
        roles: &Roles,
        lr: impl Fn(&str) -> f64,
    ) -> Vec<LayerMeasure> {
        let after = Self::take(after, roles);
        let pairs = self.weights.iter().zip(&after.weights);
        pairs
            .map(|((path, role, before), (_, _, after))| {
                let square = dot(before, before);
                LayerMeasure {
                    path: path.clone(),
                    role: *role,
                    norm: square.sqrt(),
                    effective_lr: lr(path) / square,
                    angular_update: angle(before, after),
                    gradient_norm: None,
                    equilibrium: None,
                }
            })
            .collect()
    }
}

/// The angle between two vectors in radians, by 2·atan2(‖û − v̂‖, ‖û + v̂‖): the arc cosine of a
/// cosine near 1, the usual case here, would lose half of the digits.
fn angle(u: &[f32], v: &[f32]) -> f64 {
    let (nu, nv) = (dot(u, u).sqrt(), dot(v, v).sqrt());
    let (mut apart, mut together) = (0.0, 0.0);
    for (&u, &v) in u.iter().zip(v) {
        let (u, v) = (f64::from(u) / nu, f64::from(v) / nv);
        apart += (u - v) * (u - v);
        together += (u + v) * (u + v);
    }
    2.0 * apart.sqrt().atan2(together.sqrt())
}

struct Weights<'a> {
    path: Path,
    roles: &'a Roles,
    found: Vec<(String, Role, Vec<f32>)>,
}

impl ModuleVisitor for Weights<'_> {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        if let Some(role) = self.roles.get(&path).filter(|role| role.is_weight()) {
            let data: TensorData = param.val().into_data().convert::<f32>();
            let values = data.try_into_vec().expect("converted to f32 above");
            self.found.push((path, role.role, values));
        }
    }
}

struct Gradients<'a> {
    path: Path,
    roles: &'a Roles,
    grads: &'a GradientsParams,
    found: Vec<(String, f64)>,
}

impl ModuleVisitor for Gradients<'_> {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        if !self.roles.get(&path).is_some_and(|role| role.is_weight()) {
            return;
        }
        if let Some(gradient) = self.grads.get::<D>(param.id) {
            let values: Vec<f32> = gradient.into_data().convert::<f32>().iter().collect();
            self.found.push((path, dot(&values, &values).sqrt()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angle_is_exact_for_small_and_large_turns() {
        for expected in [1e-6f64, 1e-3, 0.5, 3.0] {
            let v = [expected.cos() as f32 * 2.0, expected.sin() as f32 * 2.0];
            let found = angle(&[3.0, 0.0], &v);
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} against {expected}");
        }
        assert_eq!(angle(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn measurements_of_a_diverged_run_are_read_back_as_nan() {
        let measure = LayerMeasure {
            path: "conv.weight".to_owned(),
            role: Role::ScaleInvariant,
            norm: f64::NAN,
            effective_lr: f64::INFINITY,
            angular_update: 0.5,
            gradient_norm: Some(f64::NAN),
            equilibrium: None,
        };
        let text = serde_json::to_string(&measure).unwrap();
        let read: LayerMeasure = serde_json::from_str(&text).unwrap();
        assert!(read.norm.is_nan() && read.effective_lr.is_nan(), "{read:?}");
        assert_eq!((read.angular_update, read.gradient_norm), (0.5, None));
    }
}

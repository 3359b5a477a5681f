//! Migration from a weight-decay recipe, weights or a run to the learning rate or angle and the α of a FixNorm run.
//! Not here: the formulas (`fixnorm_analysis::migrate`, `fixnorm_analysis::theory`).

use std::path::Path;

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use fixnorm::base::BaseName;
use fixnorm::{Constraint, ParamRole, Role, Roles, ScheduleShape, StepRule};
use fixnorm_analysis::measure::{gradient_norms, weight_norms};
use fixnorm_analysis::migrate::{alpha_of, first_alpha, geometric_mean, peak_angle, radius_square};
use fixnorm_analysis::{Equilibrium, LayerMeasure};
use fixnorm_data::{DataSet, Loader};
use serde::Serialize;

use crate::analysis::MigrateError;
use crate::analysis::inspect::Inspection;
use crate::evaluate::batch::images;
use crate::recipe::keys::RecipeBuilder;
use crate::recipe::{HeadControl, Recipe, RecipeError};
use crate::run_dir::{FailureKind, History};
use crate::session::gradient::targets;
use crate::session::prepare::{prepare, train_config};
use crate::{Plan, TrainError};

/// The settings of a FixNorm run that does the same: by learning rate, and by angle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Migration {
    /// Peak learning rate under the step rule `raw`; none where no norm follows from the settings.
    pub lr: Option<f64>,
    /// Peak angle under the step rule `angular`, in radians; none where no angle was measured or follows from the settings.
    pub angle: Option<f64>,
    /// Norm of the head, ‖W‖_F/√C.
    pub alpha: f64,
    /// Shape of the learning rate's schedule that comes nearest, where a run was there to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<ScheduleShape>,
    /// Standard deviation of the natural logarithm of the run's mean effective learning rate over the schedule's;
    /// 0 would be the same curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape_error: Option<f64>,
    /// Shape of the angle's schedule that comes nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angle_shape: Option<ScheduleShape>,
    /// One entry a scale-invariant weight.
    pub per_layer: Vec<LayerMigration>,
    /// The assumptions made.
    pub assumed: Vec<String>,
    /// Peak learning rate of the run with decay, which everything that is not held keeps beside an angle.
    #[serde(skip)]
    decay_lr: f64,
    /// The recipe that is migrated.
    #[serde(skip)]
    source: Recipe,
}

/// The settings for one weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerMigration {
    /// Path of the weight.
    pub path: String,
    /// The peak learning rate that would suit this weight alone.
    pub lr: Option<f64>,
    /// The effective learning rate η/‖w‖² behind it.
    pub effective_lr: Option<f64>,
    /// The peak angle that would suit this weight alone, in radians: measured in a run, otherwise that of the equilibrium.
    pub angle: Option<f64>,
    /// The norm at which the weight is held.
    pub radius: f64,
    /// The angular update at equilibrium, where the settings come from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angular_update: Option<f64>,
}

impl Migration {
    /// The recipe keys to set for the learning rate; none without one.
    pub fn settings(&self) -> Option<Vec<(String, toml::Value)>> {
        let rate = [
            ("optimizer.step_rule", "raw".into()),
            ("optimizer.lr", self.lr?.into()),
            ("optimizer.free_lr_scale", 1.0.into()),
            ("head.lr_scale", 1.0.into()),
        ];
        Some(self.held(rate.into(), self.shape))
    }

    /// The recipe keys to set for the angle; none without one. Gains, biases and the head keep the learning rate of the run
    /// with decay.
    pub fn angle_settings(&self) -> Option<Vec<(String, toml::Value)>> {
        let angle = self.angle?;
        let scale = self.decay_lr / angle;
        let rate = [
            ("optimizer.step_rule", "angular".into()),
            ("optimizer.lr", angle.into()),
            ("optimizer.free_lr_scale", scale.into()),
            ("head.lr_scale", scale.into()),
        ];
        Some(self.held(rate.into(), self.angle_shape))
    }

    /// [`angle_settings`](Self::angle_settings) with each weight's own angle, as factors in `[lr_scale]`; by learning rate
    /// without angles.
    pub fn layer_settings(&self) -> Option<Vec<(String, toml::Value)>> {
        let (Some(mut settings), Some(angle)) = (self.angle_settings(), self.angle) else {
            return self.settings();
        };
        settings.extend(self.per_layer.iter().filter_map(|layer| {
            Some((format!("lr_scale.{}", layer.path), (layer.angle? / angle).into()))
        }));
        Some(settings)
    }

    /// The recipe with [`layer_settings`](Self::layer_settings).
    ///
    /// # Errors
    /// None is expected: every setting is a key of the recipe.
    pub fn recipe(&self) -> Result<Recipe, RecipeError> {
        let builder = RecipeBuilder::new().text(&self.source.to_toml(), "recipe")?;
        let mut settings = self.layer_settings().into_iter().flatten();
        settings.try_fold(builder, |builder, (key, value)| builder.set(&key, value))?.build()
    }

    fn held(
        &self,
        rate: Vec<(&str, toml::Value)>,
        shape: Option<ScheduleShape>,
    ) -> Vec<(String, toml::Value)> {
        let mut settings = rate;
        settings.extend([
            ("optimizer.free_step_rule", "raw".into()),
            ("optimizer.constraint", "fixed".into()),
            ("optimizer.weight_decay", 0.0.into()),
            ("head.step_rule", "raw".into()),
            ("head.control", "fixed".into()),
            ("head.alpha", self.alpha.into()),
        ]);
        if let Some(shape) = shape {
            settings.push(("schedule.shape", shape.name().into()));
        }
        settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn of_layers(
        per_layer: Vec<LayerMigration>,
        alpha: f64,
        decay_lr: f64,
        source: &Recipe,
    ) -> Result<Self, TrainError> {
        if per_layer.is_empty() {
            return Err(MigrateError::NoScaleInvariant.into());
        }
        let mean = |of: fn(&LayerMigration) -> Option<f64>| -> Option<f64> {
            geometric_mean(per_layer.iter().map(of).collect::<Option<Vec<f64>>>()?)
        };
        let (lr, angle) = (mean(|layer| layer.lr), mean(|layer| layer.angle));
        let assumed = [
            "one learning rate, or one angle, for all layers: the geometric mean of per_layer",
            "beside a learning rate, gains, biases and the head are trained with it, too; beside an angle they keep that of \
             the run with decay",
        ];
        let assumed = assumed.map(str::to_owned).to_vec();
        let (shape, shape_error, angle_shape) = (None, None, None);
        let source = source.clone();
        Ok(Self {
            lr,
            angle,
            alpha,
            shape,
            shape_error,
            angle_shape,
            per_layer,
            assumed,
            decay_lr,
            source,
        })
    }
}

/// The norm that a recipe with these choices holds a weight at, squared.
fn held(recipe: &Recipe, param: &ParamRole, norm: f64) -> f64 {
    let optimizer = &recipe.optimizer;
    radius_square(optimizer.radius, optimizer.scope(), param, norm)
}

/// From a recorded run, by the effective learning rates that were measured along it.
///
/// The per-layer rates and angles are those of the whole run but for the last twentieth of the schedule's height, where
/// ratios of numbers near zero mean nothing; the angle of the very first step, which stands for no other, is left out.
///
/// # Errors
/// No finished measurement in the run, none at all, or a run that diverged.
pub fn from_run(dir: &Path) -> Result<Migration, TrainError> {
    let history = History::read(dir)?;
    if history.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Diverged) {
        return Err(MigrateError::Diverged(dir.to_owned()).into());
    }
    let roles = history.roles()?;
    let recipe = &history.plan.recipe;
    let last = history.measures.last();
    let last = last.ok_or_else(|| MigrateError::NoMeasurements(dir.to_owned()))?;
    let head = last.layers.iter().find(|layer| layer.role == Role::Head);
    let head = head.ok_or_else(|| MigrateError::NoMeasuredHead(dir.to_owned()))?;
    let alpha = alpha_of(head.norm, history.plan.derived.classes.len());
    let first = &history.measures[0];
    let rates = best_fit(&history, &roles, Measured::EffectiveLr)?;
    // A run that diverged in the end, or whose weights did not move, has no angles.
    let angles = best_fit(&history, &roles, Measured::Angle).ok();
    let layers = rates.layers.iter().filter_map(|(path, effective_lr)| {
        let layer = first.layers.iter().find(|layer| layer.path == *path)?;
        let square = held(recipe, roles.get(path)?, layer.norm);
        let angles = angles.iter().flat_map(|fit| &fit.layers);
        Some(LayerMigration {
            path: path.clone(),
            lr: Some(effective_lr * square),
            effective_lr: Some(*effective_lr),
            angle: angles.clone().find(|(other, _)| other == path).map(|(_, angle)| *angle),
            radius: square.sqrt(),
            angular_update: None,
        })
    });
    let mut migration =
        Migration::of_layers(layers.collect(), alpha, recipe.optimizer.lr(), recipe)?;
    migration.shape = Some(rates.shape);
    migration.shape_error = Some(rates.error);
    migration.angle_shape = angles.map(|fit| fit.shape);
    migration.assumed.push("the head is held at the norm it ended with".to_owned());
    migration.assumed.push(format!(
        "the peak learning rate fits the whole run under the schedule {} in the mean of logarithms",
        rates.shape.name()
    ));
    if let Some(shape) = migration.angle_shape {
        migration.assumed.push(format!(
            "under the schedule {} the peak angle turns each weight as far as the angles that were measured, their directions \
             taken as independent",
            shape.name()
        ));
    }
    Ok(migration)
}

/// A schedule laid over a measured value of every scale-invariant weight.
struct Fit {
    shape: ScheduleShape,
    error: f64,
    /// The peak for each weight.
    layers: Vec<(String, f64)>,
}

/// What a schedule is laid over.
#[derive(Clone, Copy, PartialEq)]
enum Measured {
    EffectiveLr,
    Angle,
}

impl Measured {
    fn of(self, layer: &LayerMeasure) -> f64 {
        match self {
            Measured::EffectiveLr => layer.effective_lr,
            Measured::Angle => layer.angular_update,
        }
    }

    /// The schedule's peak for pairs of a measured value and the schedule's height.
    fn peak(self, measured: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
        match self {
            Measured::EffectiveLr => geometric_mean(measured.map(|(value, height)| value / height)),
            Measured::Angle => peak_angle(measured),
        }
    }
}

/// The fit of the run's own schedule; of a cosine also that of its root, and the nearer one.
fn best_fit(history: &History, roles: &Roles, measured: Measured) -> Result<Fit, TrainError> {
    let shapes = match history.plan.recipe.schedule.shape {
        ScheduleShape::Cosine | ScheduleShape::SqrtCosine => {
            vec![ScheduleShape::SqrtCosine, ScheduleShape::Cosine]
        }
        other => vec![other],
    };
    let fits = shapes.into_iter().map(|shape| fit(history, roles, measured, shape));
    let fits: Vec<Fit> = fits.collect::<Result<_, _>>()?;
    let best = fits.into_iter().min_by(|a, b| a.error.total_cmp(&b.error));
    Ok(best.expect("there is at least one shape"))
}

fn fit(
    history: &History,
    roles: &Roles,
    measured: Measured,
    shape: ScheduleShape,
) -> Result<Fit, TrainError> {
    let mut recipe = history.plan.recipe.clone();
    recipe.schedule.shape = shape;
    recipe.optimizer.lr = Some(1.0);
    let schedule = recipe.lr_schedule(history.plan.derived.steps_per_epoch);
    let is_measured = |layer: &&LayerMeasure| {
        let value = measured.of(layer);
        layer.role == Role::ScaleInvariant && value > 0.0 && value.is_finite()
    };
    let later = history.measures.iter().any(|measure| measure.step > 0);
    let measures: Vec<_> = history
        .measures
        .iter()
        .filter(|measure| measured == Measured::EffectiveLr || measure.step > 0 || !later)
        .map(|measure| (schedule.at_step(measure.step), measure))
        .filter(|(height, measure)| {
            *height >= 0.05 && measure.layers.iter().any(|l| is_measured(&l))
        })
        .collect();
    if measures.is_empty() {
        return Err(MigrateError::OnlyLateMeasurements(history.root.clone()).into());
    }
    let peak = |path: &str| {
        let found = measures.iter().filter_map(|(height, measure)| {
            let mut layers = measure.layers.iter().filter(is_measured);
            Some((measured.of(layers.find(|layer| layer.path == path)?), *height))
        });
        measured.peak(found)
    };
    let weights = roles.params.iter().filter(|param| param.role == Role::ScaleInvariant);
    let layers = weights.filter_map(|param| Some((param.path.clone(), peak(&param.path)?)));
    let curve = measures.iter().filter_map(|(height, measure)| {
        let layers = measure.layers.iter().filter(is_measured);
        Some(geometric_mean(layers.map(|layer| measured.of(layer) / height))?.ln())
    });
    let curve: Vec<f64> = curve.collect();
    let mean = curve.iter().sum::<f64>() / curve.len() as f64;
    let squares: f64 = curve.iter().map(|value| (value - mean).powi(2)).sum();
    Ok(Fit { shape, error: (squares / curve.len() as f64).sqrt(), layers: layers.collect() })
}

/// From weights as they were at the learning rate `lr`.
///
/// # Errors
/// No head among the weights.
pub fn from_weights(found: &Inspection, lr: f64, recipe: &Recipe) -> Result<Migration, TrainError> {
    let alpha = found.head.alpha.ok_or(MigrateError::NoHead)?;
    let weights = found.parameters.iter().filter(|row| row.role == Role::ScaleInvariant);
    let layers = weights.filter_map(|row| {
        let norm = row.norm?;
        let param = ParamRole {
            path: row.path.clone(),
            shape: row.shape.clone(),
            role: row.role,
            channel_axis: row.channel_axis,
            channel_invariant: false,
            deviation: None,
            overridden: false,
        };
        let (effective_lr, square) = (lr / (norm * norm), held(recipe, &param, norm));
        Some(LayerMigration {
            path: row.path.clone(),
            lr: Some(effective_lr * square),
            effective_lr: Some(effective_lr),
            radius: square.sqrt(),
            ..LayerMigration::default()
        })
    });
    let mut migration = Migration::of_layers(layers.collect(), alpha, lr, recipe)?;
    migration.assumed.push(format!("the weights had these norms while the learning rate was {lr}"));
    Ok(migration)
}

/// From learning rate and decay of the recipe alone, at the equilibrium of both, with the gradient of one batch at
/// initialization.
///
/// # Errors
/// A recipe without decay on scale-invariant weights, or with a base update of which no equilibrium is known.
pub fn from_recipe(plan: &Plan, data: &DataSet) -> Result<Migration, TrainError> {
    let mut plan = plan.clone();
    // As the run with decay starts: nothing held.
    plan.recipe.optimizer.constraint = Constraint::Free;
    plan.recipe.head.control = HeadControl::Constraint(Constraint::Free);
    let prepared = prepare(&plan, data)?;
    let (roles, learner) = (&prepared.roles, &prepared.learner);
    let loader = Loader::new(data.train.clone(), plan.derived.train_image, train_config(&plan))?;
    let mut batch = loader.epoch(0).next().ok_or(TrainError::NoImages("training"))??;
    let (targets, x) = (targets(&batch, &learner.device), images(&mut batch, &learner.device));
    let features: Tensor<2> = learner.model.features(x.clone());
    let [n, _] = features.dims();
    let feature_norm = (features.powi_scalar(2).sum().into_scalar::<f64>() / n as f64).sqrt();
    let loss = learner.criterion.forward(learner.model.forward(x), &targets);
    let grads = GradientsParams::from_grads(loss.backward(), &learner.model);
    let gradients = gradient_norms(&learner.model, roles, &grads);
    let norms = weight_norms(&learner.model, roles);
    let find =
        |of: &[(String, f64)], path: &str| of.iter().find(|(p, _)| p == path).map(|(_, v)| *v);
    let recipe = &plan.recipe;
    let lr = recipe.optimizer.lr();
    let mut layers = vec![];
    for param in roles.params.iter().filter(|param| param.role == Role::ScaleInvariant) {
        let settled: Equilibrium = recipe
            .equilibrium(param, lr)
            .ok_or_else(|| MigrateError::NoEquilibrium(param.path.clone()))?;
        let (Some(gradient), Some(norm)) =
            (find(&gradients, &param.path), find(&norms, &param.path))
        else {
            continue;
        };
        let settled_norm = settled.norm(gradient * norm);
        let effective_lr = settled_norm.map(|settled| lr / (settled * settled));
        let square = held(recipe, param, norm);
        layers.push(LayerMigration {
            path: param.path.clone(),
            lr: effective_lr.map(|rate| rate * square),
            effective_lr,
            angle: Some(settled.angular_update),
            radius: square.sqrt(),
            angular_update: Some(settled.angular_update),
        });
    }
    let classes = plan.derived.classes.len();
    let alpha = first_alpha(classes, recipe.train.label_smoothing, feature_norm);
    let mut migration = Migration::of_layers(layers, alpha, lr, recipe)?;
    // Under decay angles follow the root of the learning rate.
    migration.angle_shape = match recipe.schedule.shape {
        ScheduleShape::Cosine => Some(ScheduleShape::SqrtCosine),
        other => Some(other),
    };
    if migration.lr.is_none() {
        let why = "no learning rate: the steps of this base update do not grow with the gradient, so its equilibrium does \
                   not determine the norm";
        migration.assumed.push(why.to_owned());
    }
    migration.assumed.extend([
        format!("equilibrium of lr {lr} and weight decay {}", recipe.optimizer.weight_decay),
        "gradients as large as on one batch at initialization, and uncorrelated between steps".to_owned(),
        format!("alpha from the label smoothing and the features' norm {feature_norm:.3}: no run was there to read it from"),
    ]);
    Ok(migration)
}

/// The recipe of a run with SGD and L2 decay on all weights.
pub fn decayed(mut recipe: Recipe, lr: f64, weight_decay: f64, momentum: f64) -> Recipe {
    recipe.optimizer.base = BaseName::Sgd;
    recipe.optimizer.lr = Some(lr);
    recipe.optimizer.step_rule = Some(StepRule::Raw);
    recipe.optimizer.weight_decay = weight_decay;
    recipe.optimizer.momentum = momentum;
    recipe.optimizer.constraint = Constraint::Free;
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::inspect::{HeadRow, Row};

    #[test]
    fn output_channels_are_counted_along_the_axis_of_the_layer() {
        let row = |path: &str, shape: [usize; 2], role, channel_axis| Row {
            path: path.to_owned(),
            shape: shape.to_vec(),
            role,
            channel_axis,
            scope: None,
            norm: Some(2.0),
            effective_lr: None,
            angle: None,
            deviation: None,
        };
        // A linear weight is [d_in, d_out]: 48 output channels, of norm √48 together.
        let parameters = vec![
            row("hidden.weight", [12, 48], Role::ScaleInvariant, Some(1)),
            row("head.weight", [48, 10], Role::Head, Some(1)),
        ];
        let head = HeadRow { path: Some("head.weight".to_owned()), alpha: Some(0.5) };
        let found = Inspection { parameters, head, risk: None, separation: None };
        let migration = from_weights(&found, 0.1, &Recipe::default()).unwrap();
        let [layer] = &migration.per_layer[..] else { panic!("{migration:?}") };
        assert!((layer.radius - 48f64.sqrt()).abs() < 1e-12, "{layer:?}");
        assert!((migration.lr.unwrap() - 0.1 * 48.0 / 4.0).abs() < 1e-12, "{migration:?}");
        assert_eq!((migration.angle, migration.angle_settings()), (None, None));
    }
}

//! What a recipe's keys come to in the library's terms, and which values they may have.
//! Not here: the keys themselves and their defaults (`mod.rs`).

use fixnorm::base::{AdamW, RmsProp};
use fixnorm::{
    BaseUpdate, Constraint, DecayTarget, FixNormConfig, LrSchedule, ParamRole, Probe, Role,
    ScheduleShape, SetupError, StepRule, UpdateRule, WeightDecay,
};
use fixnorm_analysis::Equilibrium;
use fixnorm_data::{Crop, Interpolation, Transform};
use fixnorm_nn::{Criterion, ModelSpec};

use crate::recipe::{
    Base, CropName, Follow, HeadMode, InterpolationName, LossName, Recipe, ShapeName, Train,
};
use crate::weights::pretrained;

impl Train {
    /// Pictures a step.
    pub fn step_size(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulate)
    }

    /// The training loss.
    pub fn criterion(&self) -> Criterion {
        let label_smoothing = self.label_smoothing;
        match self.loss {
            LossName::CrossEntropy => Criterion::CrossEntropy { label_smoothing },
            LossName::Bce => Criterion::BinaryCrossEntropy {
                label_smoothing,
                threshold: (self.bce_threshold > 0.0).then_some(self.bce_threshold),
            },
        }
    }
}

impl Recipe {
    /// With the values that depend on other values put in.
    pub fn resolved(mut self) -> Self {
        if self.optimizer.epsilon == 0.0 {
            self.optimizer.epsilon = match self.optimizer.base {
                Base::Adamw => 1e-8,
                Base::Rmsprop | Base::Sgd | Base::Nesterov => 1e-3,
            };
        }
        self
    }

    /// With what depends on the model and on whether pictures have the shape that it is trained in.
    pub(crate) fn with_pictures(mut self, spec: &ModelSpec, as_they_are: bool) -> Self {
        let own = pretrained::resize(spec);
        if self.augment.crop == CropName::Auto {
            self.augment.crop = match as_they_are {
                true => CropName::Padded,
                false => CropName::RandomResized,
            };
        }
        if self.augment.interpolation == InterpolationName::Auto {
            self.augment.interpolation = match own.interpolation {
                Interpolation::Bilinear => InterpolationName::Bilinear,
                Interpolation::Bicubic => InterpolationName::Bicubic,
            };
        }
        if self.eval.crop_ratio == 0.0 {
            self.eval.crop_ratio = own.crop_ratio;
        }
        self
    }

    /// How training pictures are made. Call it with what a plan has resolved.
    pub fn transform(&self) -> Transform {
        let augment = &self.augment;
        Transform {
            crop: match augment.crop {
                CropName::Auto | CropName::Padded => Crop::Padded,
                CropName::RandomResized => Crop::RandomResized,
                CropName::Center => Crop::Center,
            },
            crop_padding: augment.crop_padding,
            crop_ratio: self.eval.crop_ratio,
            scale: augment.scale,
            ratio: augment.ratio,
            interpolation: match augment.interpolation {
                InterpolationName::Auto | InterpolationName::Bilinear => Interpolation::Bilinear,
                InterpolationName::Bicubic => Interpolation::Bicubic,
            },
            hflip: augment.hflip,
            color_jitter: augment.color_jitter,
            auto_augment: augment.auto_augment.clone(),
            random_erasing: augment.random_erasing,
            erasing: augment.erasing,
            mixup: augment.mixup,
            cutmix: augment.cutmix,
            repeats: augment.repeats,
        }
    }

    /// The optimizer's configuration.
    pub fn optimizer_config(&self) -> FixNormConfig {
        let optimizer = &self.optimizer;
        let momentum = optimizer.momentum;
        let base = match optimizer.base {
            Base::Sgd => BaseUpdate::sgd(momentum),
            Base::Nesterov => BaseUpdate::nesterov(momentum),
            Base::Rmsprop => BaseUpdate::RmsProp(RmsProp {
                decay: optimizer.alpha,
                momentum,
                epsilon: optimizer.epsilon,
            }),
            Base::Adamw => BaseUpdate::AdamW(AdamW {
                beta1: optimizer.beta1,
                beta2: optimizer.beta2,
                epsilon: optimizer.epsilon,
            }),
        };
        let trust = optimizer.step_rule == StepRule::TrustRatio;
        let held = UpdateRule::free()
            .with_step(optimizer.step_rule)
            .with_constraint(optimizer.constraint)
            .with_radius(optimizer.radius)
            .with_scope(optimizer.scope);
        let rows = UpdateRule::row_rms(self.head.alpha);
        let head = match self.head.control {
            HeadMode::Fixed => rows,
            HeadMode::Capped => rows.with_constraint(Constraint::Capped),
            HeadMode::Free | HeadMode::Decayed => UpdateRule::free(),
        };
        let head_step = if trust { StepRule::TrustRatio } else { self.head.step_rule };
        let free = UpdateRule::free().with_lr_scale(optimizer.free_lr_scale);
        let free_step = if trust { StepRule::TrustRatio } else { optimizer.free_step_rule };
        let decay = |rate, target| WeightDecay { rate, kind: optimizer.decay_kind, target };
        let mut weight_decay = vec![];
        if optimizer.weight_decay != 0.0 {
            weight_decay.push(decay(optimizer.weight_decay, optimizer.decay_target));
        }
        if self.head.control == HeadMode::Decayed {
            weight_decay.push(decay(self.head.weight_decay, DecayTarget::Head));
        }
        FixNormConfig::new(base)
            .with_scale_invariant(held)
            .with_head(head.with_step(head_step).with_lr_scale(self.head.lr_scale))
            .with_free(free.with_step(free_step))
            .with_gains_and_biases(free.with_step(optimizer.free_step_rule))
            .with_weight_decay(weight_decay)
    }

    /// Where decay brings a weight of this role at this learning rate, if there is decay on it and theory has
    /// something to say.
    pub fn equilibrium(&self, param: &ParamRole, lr: f64) -> Option<Equilibrium> {
        let config = self.optimizer_config();
        if param.role != Role::ScaleInvariant || config.rule(param).constraint != Constraint::Free {
            return None;
        }
        let decay = config.weight_decay.iter().rfind(|decay| decay.target.includes(param))?;
        Equilibrium::of(&config.base, decay.kind, lr, decay.rate)
    }

    /// The learning rate of every step.
    pub fn lr_schedule(&self, steps_per_epoch: usize) -> LrSchedule {
        let epochs = self.train.epochs as f64;
        let every = self.schedule.decay_epochs;
        let milestones = match every > 0.0 {
            true => (1..).map(|i| f64::from(i) * every).take_while(|&at| at < epochs).collect(),
            false => self.schedule.milestones.clone(),
        };
        let shape = match self.schedule.shape {
            ShapeName::Constant => ScheduleShape::Constant,
            ShapeName::Linear => ScheduleShape::Linear,
            ShapeName::Step => {
                ScheduleShape::Step { epochs: milestones, gamma: self.schedule.gamma }
            }
            ShapeName::Cosine => ScheduleShape::Cosine,
            ShapeName::SqrtCosine => ScheduleShape::SqrtCosine,
        };
        let schedule = LrSchedule::new(self.optimizer.lr, shape, epochs, steps_per_epoch)
            .with_warmup(self.schedule.warmup_epochs)
            .with_final_factor(self.schedule.final_factor);
        match self.schedule.per_epoch {
            true => schedule.per_epoch(),
            false => schedule,
        }
    }

    /// The probe that finds the roles, with the roles set by hand.
    pub fn probe(&self) -> Probe {
        let probe = match self.head.path.as_str() {
            "" => Probe::new(),
            path => Probe::new().with_head(path),
        };
        let overrides = self.roles.iter();
        overrides.fold(probe, |probe, (pattern, role)| probe.with_role(pattern, *role))
    }

    /// Checks the values that no other part checks.
    ///
    /// # Errors
    /// [`SetupError::OutOfRange`] names the key.
    pub fn validate(&self) -> Result<(), SetupError> {
        let check = |fine: bool, name, expected, value| match fine {
            true => Ok(()),
            false => Err(SetupError::OutOfRange { name, expected, value }),
        };
        let (train, schedule) = (&self.train, &self.schedule);
        let lr = self.optimizer.lr;
        check(train.epochs > 0, "train.epochs", "at least 1", 0.0)?;
        check(
            train.batch_size > 1,
            "train.batch_size",
            "at least 2 (batch norm needs them)",
            train.batch_size as f64,
        )?;
        let ratio = self.eval.crop_ratio;
        check((0.0..=1.0).contains(&ratio), "eval.crop_ratio", "between 0 and 1", ratio)?;
        for (name, side) in [
            ("train.resolution", train.resolution),
            ("train.start_resolution", train.start_resolution),
            ("eval.resolution", self.eval.resolution),
        ] {
            check(side <= 4096, name, "at most 4096", side as f64)?;
        }
        check(train.accumulate > 0, "train.accumulate", "at least 1", 0.0)?;
        let clip = self.optimizer.clip_norm;
        check(
            clip >= 0.0 && clip.is_finite(),
            "optimizer.clip_norm",
            "at least 0 and finite",
            clip,
        )?;
        for (name, share) in [
            ("train.label_smoothing", train.label_smoothing),
            ("train.bce_threshold", train.bce_threshold),
            ("train.dropout", train.dropout),
            ("train.drop_path", train.drop_path),
            ("train.ema_decay", train.ema_decay),
        ] {
            check((0.0..1.0).contains(&share), name, "at least 0 and below 1", share)?;
        }
        check(lr > 0.0 && lr.is_finite(), "optimizer.lr", "above 0 and finite", lr)?;
        let warmup = schedule.warmup_epochs;
        check(
            (0.0..=train.epochs as f64).contains(&warmup),
            "schedule.warmup_epochs",
            "between 0 and train.epochs",
            warmup,
        )?;
        let end = schedule.final_factor;
        check((0.0..=1.0).contains(&end), "schedule.final_factor", "between 0 and 1", end)?;
        let every = schedule.decay_epochs;
        let few = every == 0.0 || train.epochs as f64 / every <= 1e6;
        check(
            every >= 0.0 && few,
            "schedule.decay_epochs",
            "0, or at least a millionth of train.epochs",
            every,
        )?;
        check(schedule.gamma > 0.0, "schedule.gamma", "above 0", schedule.gamma)?;
        let max_bad = self.loader.max_bad;
        check((0.0..=1.0).contains(&max_bad), "loader.max_bad", "between 0 and 1", max_bad)?;
        check(self.log.every_steps > 0, "log.every_steps", "at least 1", 0.0)?;
        check(self.log.risk_pictures > 0, "log.risk_pictures", "at least 1", 0.0)?;
        let per_layer = !self.replay.run.is_empty() && self.replay.follow == Follow::EffectiveLr;
        check(
            !(self.log.trajectory && per_layer),
            "log.trajectory",
            "off in a run that follows effective learning rates, which the other run's record holds",
            1.0,
        )?;
        check(self.checkpoint.keep_last > 0, "checkpoint.keep_last", "at least 1", 0.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::RecipeBuilder;

    #[test]
    fn decay_epochs_are_milestones_in_a_row() {
        let set =
            |builder: RecipeBuilder, assignment: &str| builder.override_with(assignment).unwrap();
        let assignments = [
            "schedule.shape=step",
            "schedule.decay_epochs=2.4",
            "schedule.gamma=0.97",
            "optimizer.lr=1",
            "train.epochs=350",
        ];
        let recipe = assignments.into_iter().fold(RecipeBuilder::new(), set).build().unwrap();
        let schedule = recipe.lr_schedule(100);
        for (epoch, decays) in [(0.0, 0), (2.3, 0), (2.41, 1), (4.79, 1), (4.81, 2), (349.9, 145)] {
            let expected = 0.97f64.powi(decays);
            assert!((schedule.at_epoch(epoch) - expected).abs() < 1e-12, "{epoch}");
        }
    }
}

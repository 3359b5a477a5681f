//! From a recipe's keys to the library's types, and the values that keys may have.
//! Not here: the keys themselves and their defaults (`mod.rs`).

use fixnorm::base::{BaseName, Coefficients};
use fixnorm::{
    BaseUpdate, Constraint, DecayTarget, FixNormConfig, LrSchedule, MAX_ANGLE, ParamRole, Probe,
    Role, Scope, SetupError, StepRule, UpdateRule, WeightDecay,
};
use fixnorm_analysis::Equilibrium;
use fixnorm_data::{Crop, Interpolation, Resize, Transform};
use fixnorm_nn::{Criterion, ModelSpec, Recompute};
use fixnorm_tune::law;

use crate::recipe::{Follow, Head, HeadControl, Loader, Optimizer, Recipe, Train};

impl Train {
    /// Images of a step.
    pub fn step_size(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulate)
    }

    /// The training loss.
    pub fn criterion(&self) -> Criterion {
        let Train { loss, label_smoothing, bce_threshold, .. } = *self;
        Criterion { loss, label_smoothing, bce_threshold }
    }
}

/// The learning rate of rules other than `angular` where none is given.
const RAW_LR: f64 = 0.2;

impl Optimizer {
    /// The step rule of scale-invariant weights.
    pub fn step_rule(&self) -> StepRule {
        self.step_rule.unwrap_or(match self.constraint {
            Constraint::Free => StepRule::Raw,
            Constraint::Fixed | Constraint::Capped => StepRule::Angular,
        })
    }

    /// What norms and angles of scale-invariant weights are taken over.
    pub fn scope(&self) -> Scope {
        self.scope.unwrap_or(match self.step_rule() {
            StepRule::Angular => Scope::OutputChannel,
            _ => Scope::Tensor,
        })
    }

    /// The peak learning rate of a recipe that a plan has resolved.
    ///
    /// # Panics
    /// If no plan has resolved the recipe and none is given.
    pub fn lr(&self) -> f64 {
        self.lr.expect("a plan resolves the learning rate")
    }
}

impl Head {
    /// The RMS norm of a class's row in a recipe that was resolved.
    ///
    /// # Panics
    /// If the recipe was not [resolved](Recipe::resolved) and none is given.
    pub fn alpha(&self) -> f64 {
        self.alpha.expect("a resolved recipe has a norm for the head")
    }
}

impl Recipe {
    /// Fills in the values that follow from other values.
    pub fn resolved(mut self) -> Self {
        self.optimizer.epsilon = self.base_update().epsilon();
        let rule = self.optimizer.step_rule();
        let is_angular = rule == StepRule::Angular;
        self.optimizer.step_rule = Some(rule);
        self.optimizer.scope = Some(self.optimizer.scope());
        // Directions of the adaptive base updates are about 1 for every element, those of gradients smaller.
        let is_sgd = matches!(self.optimizer.base, BaseName::Sgd | BaseName::Nesterov);
        let free_lr_scale = if is_angular && is_sgd { 4.0 } else { 1.0 };
        self.optimizer.free_lr_scale.get_or_insert(free_lr_scale);
        // A model that does not exist is an error of the plan.
        let features = ModelSpec::find(&self.model).map_or(law::FEATURES, |spec| spec.num_features);
        self.head.alpha.get_or_insert(if is_angular { law::alpha(features) } else { 1.0 });
        if !is_angular {
            self.optimizer.lr.get_or_insert(RAW_LR);
        }
        self
    }

    /// Fills in the learning rate that follows from the number of steps.
    pub(crate) fn with_steps(mut self, steps: usize) -> Self {
        let angle = law::angle(steps as f64, self.train.step_size() as f64);
        self.optimizer.lr.get_or_insert(angle);
        self
    }

    /// The base update with the recipe's coefficients.
    fn base_update(&self) -> BaseUpdate {
        let optimizer = &self.optimizer;
        optimizer.base.with(&Coefficients {
            momentum: optimizer.momentum,
            rms_decay: optimizer.rms_decay,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
        })
    }

    /// Fills in the values that follow from the model's own way to resize images, `own`, from whether images have the
    /// shape that it is trained in, and from that shape.
    pub(crate) fn with_images(mut self, own: Resize, has_shape: bool, shape: [usize; 3]) -> Self {
        let crop = if has_shape { Crop::Padded } else { Crop::RandomResized };
        self.augment.crop.get_or_insert(crop);
        self.augment.interpolation.get_or_insert(own.interpolation);
        if self.loader.cache.is_some() && self.augment.crop == Some(Crop::RandomResized) {
            self.augment.max_shorter_side.get_or_insert(Loader::kept_side(shape));
        }
        self.eval.crop_ratio.get_or_insert(own.crop_ratio);
        self
    }

    /// The transform of training images. For a recipe that a plan has resolved.
    pub fn transform(&self) -> Transform {
        let augment = &self.augment;
        Transform {
            crop: augment.crop.unwrap_or(Crop::Padded),
            crop_padding: augment.crop_padding,
            crop_ratio: self.eval.crop_ratio.unwrap_or(0.0),
            max_shorter_side: augment.max_shorter_side,
            scale: augment.scale,
            ratio: augment.ratio,
            interpolation: augment.interpolation.unwrap_or(Interpolation::Bilinear),
            exact_decode: augment.exact_decode,
            hflip: augment.hflip,
            color_jitter: augment.color_jitter,
            auto_augment: augment.auto_augment.clone().unwrap_or_default(),
            random_erasing: augment.random_erasing,
            erasing: augment.erasing,
            mixup: augment.mixup.unwrap_or(0.0),
            cutmix: augment.cutmix.unwrap_or(0.0),
            repeats: augment.repeats,
        }
    }

    /// The optimizer's configuration.
    pub fn optimizer_config(&self) -> FixNormConfig {
        let optimizer = &self.optimizer;
        let step_rule = optimizer.step_rule();
        let trust = step_rule == StepRule::TrustRatio;
        let held = UpdateRule::free()
            .with_step(step_rule)
            .with_constraint(optimizer.constraint)
            .with_radius(optimizer.radius)
            .with_scope(optimizer.scope());
        let head = match self.head.control.constraint() {
            Constraint::Free => UpdateRule::free(),
            held => UpdateRule::row_rms(self.head.alpha()).with_constraint(held),
        };
        let head_step = if trust { StepRule::TrustRatio } else { self.head.step_rule };
        let free = UpdateRule::free().with_lr_scale(optimizer.free_lr_scale.unwrap_or(1.0));
        let free_step = if trust { StepRule::TrustRatio } else { optimizer.free_step_rule };
        let decay = |rate, target| WeightDecay { rate, kind: optimizer.decay_kind, target };
        let mut weight_decay = vec![];
        if optimizer.weight_decay != 0.0 {
            weight_decay.push(decay(optimizer.weight_decay, optimizer.decay_target));
        }
        if self.head.control == HeadControl::Decayed {
            weight_decay.push(decay(self.head.weight_decay, DecayTarget::Head));
        }
        FixNormConfig::new(self.base_update())
            .with_scale_invariant(held)
            .with_head(head.with_step(head_step).with_lr_scale(self.head.lr_scale))
            .with_free(free.with_step(free_step))
            .with_gains_and_biases(free.with_step(optimizer.free_step_rule))
            .with_weight_decay(weight_decay)
    }

    /// The highest learning rate with its unit, and the head's norm if it is held.
    pub(crate) fn knobs(&self) -> String {
        let lr = self.optimizer.lr();
        let rate = if self.optimizer.step_rule() == StepRule::Angular {
            format!("angle {} rad", significant(lr))
        } else {
            format!("lr {}", significant(lr))
        };
        match self.head.control.constraint() {
            Constraint::Free => rate,
            Constraint::Capped => format!("{rate}, α at most {}", significant(self.head.alpha())),
            Constraint::Fixed => format!("{rate}, α {}", significant(self.head.alpha())),
        }
    }

    /// The equilibrium that weight decay brings a weight of this role to at this learning rate, if it decays and theory
    /// knows one.
    pub fn equilibrium(&self, param: &ParamRole, lr: f64) -> Option<Equilibrium> {
        let config = self.optimizer_config();
        let rule = config.rule(param);
        let is_free = rule.constraint == Constraint::Free && rule.step == StepRule::Raw;
        if param.role != Role::ScaleInvariant || !is_free {
            return None;
        }
        let decay = config.weight_decay.iter().rfind(|decay| decay.target.includes(param))?;
        Equilibrium::of(&config.base, decay.kind, lr, decay.rate)
    }

    /// The angle in radians by which a step is expected to turn a weight of this role at this learning rate: the rate itself,
    /// times the role's factor, under the step rule `angular`; the equilibrium under weight decay; otherwise none.
    pub fn expected_angle(&self, param: &ParamRole, lr: f64) -> Option<f64> {
        let config = self.optimizer_config();
        let rule = config.rule(param);
        if rule.step == StepRule::Angular {
            return Some((lr * rule.lr_scale).min(MAX_ANGLE));
        }
        self.equilibrium(param, lr).map(|settled| settled.angular_update)
    }

    /// The learning rate of every step.
    pub fn lr_schedule(&self, steps_per_epoch: usize) -> LrSchedule {
        let epochs = self.train.epochs as f64;
        let milestones = match self.schedule.decay_epochs {
            Some(every) => {
                (1..).map(|i| f64::from(i) * every).take_while(|&at| at < epochs).collect()
            }
            None => self.schedule.milestones.clone(),
        };
        let shape = self.schedule.shape;
        let schedule = LrSchedule::new(self.optimizer.lr(), shape, epochs, steps_per_epoch)
            .with_warmup(self.schedule.warmup_epochs)
            .with_final_factor(self.schedule.final_factor)
            .with_milestones(milestones, self.schedule.gamma);
        if self.schedule.per_epoch { schedule.per_epoch() } else { schedule }
    }

    /// The probe that finds the roles, with the roles that the user sets.
    pub fn probe(&self) -> Probe {
        let probe = match &self.head.path {
            Some(path) => Probe::new().with_head(path),
            None => Probe::new(),
        };
        let overrides = self.roles.iter();
        overrides.fold(probe, |probe, (pattern, role)| probe.with_role(pattern, *role))
    }

    /// Checks the values that no other part of the program checks.
    ///
    /// # Errors
    /// [`SetupError::OutOfRange`] names the key.
    pub fn validate(&self) -> Result<(), SetupError> {
        self.validate_training()?;
        self.validate_schedule()?;
        self.validate_images()?;
        self.validate_records()
    }

    fn validate_training(&self) -> Result<(), SetupError> {
        // An angle that follows from the number of steps is in range.
        let (train, lr) = (&self.train, self.optimizer.lr.unwrap_or(1.0));
        check(train.epochs > 0, "train.epochs", "at least 1", 0.0)?;
        let size = train.batch_size;
        check(size > 1, "train.batch_size", "at least 2 (batch norm needs them)", size as f64)?;
        check(train.accumulate > 0, "train.accumulate", "at least 1", 0.0)?;
        let shared = train.sync_batch_norm && train.recompute != Recompute::None;
        check(!shared, "train.recompute", "none with train.sync_batch_norm=true", 1.0)?;
        let clip = self.optimizer.clip_norm.unwrap_or(1.0);
        let is_norm = clip > 0.0 && clip.is_finite();
        check(is_norm, "optimizer.clip_norm", "above 0 and finite, or none", clip)?;
        for (name, share) in [
            ("train.label_smoothing", train.label_smoothing),
            ("train.bce_threshold", train.bce_threshold.unwrap_or(0.0)),
            ("train.dropout", train.dropout),
            ("train.drop_path", train.drop_path),
            ("train.ema_decay", train.ema_decay.unwrap_or(0.0)),
        ] {
            check((0.0..1.0).contains(&share), name, "at least 0 and below 1", share)?;
        }
        let factors = self.lr_scale.values().copied();
        let largest = factors.clone().fold(1.0, f64::max);
        for factor in factors {
            check(factor > 0.0 && factor.is_finite(), "lr_scale", "above 0 and finite", factor)?;
        }
        if self.optimizer.step_rule() == StepRule::Angular {
            let range = "above 0 and at most 1.5 radians, or optimizer.step_rule = \"raw\"";
            return check(
                lr > 0.0 && lr * largest <= MAX_ANGLE,
                "optimizer.lr",
                range,
                lr * largest,
            );
        }
        check(lr > 0.0 && lr.is_finite(), "optimizer.lr", "above 0 and finite", lr)
    }

    fn validate_schedule(&self) -> Result<(), SetupError> {
        let (schedule, epochs) = (&self.schedule, self.train.epochs as f64);
        let (warmup, range) = (schedule.warmup_epochs, "between 0 and train.epochs");
        check((0.0..=epochs).contains(&warmup), "schedule.warmup_epochs", range, warmup)?;
        let end = schedule.final_factor;
        check((0.0..=1.0).contains(&end), "schedule.final_factor", "between 0 and 1", end)?;
        let every = schedule.decay_epochs.unwrap_or(epochs);
        let (fine, range) =
            (every > 0.0 && epochs / every <= 1e6, "at least a millionth of train.epochs");
        check(fine, "schedule.decay_epochs", range, every)?;
        check(schedule.gamma > 0.0, "schedule.gamma", "above 0", schedule.gamma)
    }

    fn validate_images(&self) -> Result<(), SetupError> {
        check(self.eval.every_epochs > 0, "eval.every_epochs", "at least 1", 0.0)?;
        let ratio = self.eval.crop_ratio.unwrap_or(1.0);
        check((0.0..=1.0).contains(&ratio), "eval.crop_ratio", "between 0 and 1", ratio)?;
        for (name, side) in [
            ("train.resolution", self.train.resolution),
            ("train.start_resolution", self.train.start_resolution),
            ("eval.resolution", self.eval.resolution),
        ] {
            let side = side.unwrap_or(0);
            check(side <= 4096, name, "at most 4096", side as f64)?;
        }
        let gib = self.loader.cache_gib;
        let size = gib.is_finite() && gib >= 0.0;
        check(size, "loader.cache_gib", "a finite number of at least 0", gib)?;
        let max_bad = self.loader.max_bad;
        check((0.0..=1.0).contains(&max_bad), "loader.max_bad", "between 0 and 1", max_bad)
    }

    fn validate_records(&self) -> Result<(), SetupError> {
        check(self.log.every_steps > 0, "log.every_steps", "at least 1", 0.0)?;
        check(self.log.risk_pictures > 0, "log.risk_pictures", "at least 1", 0.0)?;
        let per_layer = self.replay.run.is_some() && self.replay.follow == Follow::EffectiveLr;
        check(
            !(self.log.trajectory && per_layer),
            "log.trajectory",
            "off in a run that follows effective learning rates, which the other run's record holds",
            1.0,
        )?;
        let scaled = per_layer && !self.lr_scale.is_empty();
        check(!scaled, "lr_scale", "empty in a run that follows effective learning rates", 1.0)?;
        check(self.checkpoint.keep_last > 0, "checkpoint.keep_last", "at least 1", 0.0)
    }
}

fn check(
    fine: bool,
    name: &'static str,
    expected: &'static str,
    value: f64,
) -> Result<(), SetupError> {
    if fine { Ok(()) } else { Err(SetupError::OutOfRange { name, expected, value }) }
}

/// `value` with three significant digits.
fn significant(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use fixnorm::{Scope, StepRule};

    use crate::RecipeBuilder;

    #[test]
    fn rule_rate_and_head_norm_follow_from_the_constraint_and_the_steps() {
        let resolved = |assignments: &[&str]| {
            let set = |builder: RecipeBuilder, given: &&str| builder.override_with(given).unwrap();
            let builder = assignments.iter().fold(RecipeBuilder::new(), set);
            builder.build().unwrap().resolved().with_steps(800)
        };
        let keys = |assignments: &[&str]| {
            let recipe = resolved(assignments);
            let optimizer = &recipe.optimizer;
            (optimizer.step_rule(), optimizer.lr(), optimizer.free_lr_scale, recipe.head.alpha())
        };
        let (rule, angle, scale, alpha) = keys(&[]);
        assert_eq!((rule, scale, alpha), (StepRule::Angular, Some(4.0), 4.0));
        assert_eq!(resolved(&["model=shufflenet_v2_x1_0"]).head.alpha(), 1.0);
        assert_eq!(resolved(&[]).optimizer.scope(), Scope::OutputChannel);
        assert_eq!(resolved(&["optimizer.step_rule=raw"]).optimizer.scope(), Scope::Tensor);
        assert_eq!(angle, fixnorm_tune::law::angle(800.0, 64.0));
        let (rule, angle, scale, _) = keys(&["optimizer.lr=0.03", "optimizer.base=adamw"]);
        assert_eq!((rule, angle, scale), (StepRule::Angular, 0.03, Some(1.0)));
        let raw = (StepRule::Raw, 0.2, Some(1.0), 1.0);
        assert_eq!(keys(&["optimizer.step_rule=raw"]), raw);
        assert_eq!(keys(&["optimizer.constraint=free"]), raw);
        assert_eq!(resolved(&[]).knobs(), "angle 0.0163 rad, α 4");
        assert_eq!(resolved(&["optimizer.step_rule=raw"]).knobs(), "lr 0.2, α 1");
        let free = ["optimizer.constraint=free", "head.control=free"];
        assert_eq!(resolved(&free).knobs(), "lr 0.2");
    }

    #[test]
    fn an_angle_beyond_a_right_one_is_refused() {
        let check = |assignments: [&str; 2]| {
            let set = |builder: RecipeBuilder, given| builder.override_with(given).unwrap();
            assignments.into_iter().fold(RecipeBuilder::new(), set).build().unwrap().validate()
        };
        let error = check(["optimizer.lr=3.2", "model=resnet8"]).unwrap_err().to_string();
        assert!(error.contains("optimizer.lr") && error.contains("radians"), "{error}");
        assert!(check(["optimizer.lr=0", "model=resnet8"]).is_err());
        check(["optimizer.lr=3.2", "optimizer.step_rule=raw"]).unwrap();
    }

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

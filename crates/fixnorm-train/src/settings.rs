//! What a recipe's keys come to in the library's terms, and which values they may have.
//! Not here: the keys themselves and their defaults (`recipe.rs`).

use fixnorm::{
    BaseUpdate, Constraint, Equilibrium, FixNormConfig, HeadControl, LrSchedule, ParamRole, Probe,
    Radius, Role, ScheduleShape, SetupError, WeightDecay,
};

use crate::recipe::{Base, Follow, HeadMode, RadiusKind, RadiusName, Recipe, ShapeName};

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

    /// The optimizer's configuration.
    pub fn optimizer_config(&self) -> FixNormConfig {
        let optimizer = &self.optimizer;
        let momentum = optimizer.momentum;
        let base = match optimizer.base {
            Base::Sgd => BaseUpdate::sgd(momentum),
            Base::Nesterov => BaseUpdate::nesterov(momentum),
            Base::Rmsprop => {
                BaseUpdate::RmsProp { alpha: optimizer.alpha, momentum, epsilon: optimizer.epsilon }
            }
            Base::Adamw => BaseUpdate::AdamW {
                betas: (optimizer.beta1, optimizer.beta2),
                epsilon: optimizer.epsilon,
            },
        };
        FixNormConfig {
            base,
            step_rule: optimizer.step_rule,
            constraint: optimizer.constraint,
            radius: match optimizer.radius {
                RadiusName::Value(radius) => Radius::Value(radius),
                RadiusName::Whole(radius) => Radius::Value(radius as f64),
                RadiusName::Name(RadiusKind::Unit) => Radius::Unit,
                RadiusName::Name(RadiusKind::Init) => Radius::Init,
                RadiusName::Name(RadiusKind::SqrtCOut) => Radius::SqrtCOut,
            },
            scope: optimizer.scope,
            head: match self.head.control {
                HeadMode::Fixed => HeadControl::Fixed(self.head.alpha),
                HeadMode::Capped => HeadControl::Capped(self.head.alpha),
                HeadMode::Free => HeadControl::Free,
                HeadMode::Decayed => {
                    HeadControl::Decayed(self.head.weight_decay, optimizer.decay_kind)
                }
            },
            weight_decay: (optimizer.weight_decay != 0.0).then_some(WeightDecay {
                rate: optimizer.weight_decay,
                kind: optimizer.decay_kind,
                target: optimizer.decay_target,
            }),
        }
    }

    /// Where decay brings a weight of this role at this learning rate, if there is decay on it and theory has
    /// something to say.
    pub fn equilibrium(&self, param: &ParamRole, lr: f64) -> Option<Equilibrium> {
        let config = self.optimizer_config();
        let free = param.role == Role::ScaleInvariant && config.constraint == Constraint::Free;
        let decay = config.weight_decay.filter(|decay| free && decay.target.includes(param))?;
        Equilibrium::of(&config.base, decay.kind, lr, decay.rate)
    }

    /// The learning rate of every step.
    pub fn lr_schedule(&self, steps_per_epoch: usize) -> LrSchedule {
        let shape = match self.schedule.shape {
            ShapeName::Constant => ScheduleShape::Constant,
            ShapeName::Linear => ScheduleShape::Linear,
            ShapeName::Step => ScheduleShape::Step {
                epochs: self.schedule.milestones.clone(),
                gamma: self.schedule.gamma,
            },
            ShapeName::Cosine => ScheduleShape::Cosine,
            ShapeName::SqrtCosine => ScheduleShape::SqrtCosine,
        };
        let epochs = self.train.epochs as f64;
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
        for (name, share) in [
            ("train.label_smoothing", train.label_smoothing),
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
        check(schedule.gamma > 0.0, "schedule.gamma", "above 0", schedule.gamma)?;
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

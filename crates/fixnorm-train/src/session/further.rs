//! The ranks of a run besides the first: each takes its share of every step and makes the same update. Rank 0 tells them what
//! comes next; they write nothing.
//!
//! Weights and optimizer states come from rank 0 when the run begins, so the run directory is its alone. Before every
//! checkpoint it compares its weights with theirs by a checksum.
//! Not here: the sum of gradients (`exchange.rs`), how bytes travel (`ranks.rs`).

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Tensor};
use fixnorm::Roles;
use fixnorm_analysis::measure::weight_norms;
use fixnorm_data::{Batch, DataSet, Epoch, Loader, LoaderConfig};
use fixnorm_nn::Classifier;
use serde::{Deserialize, Serialize};

use crate::ranks::{Ranks, RanksError};
use crate::session::outcome::Stop;
use crate::session::pace::Pace;
use crate::session::prepare::{assemble, fresh, train_config};
use crate::session::step::Learner;
use crate::{Plan, TrainError};

/// What comes next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The run begins: the bytes of model and optimizer follow.
    Begin { plan: String, roles: Box<Roles> },
    /// A step on the batches from `batch` on of an epoch.
    Step { step: usize, epoch: usize, batch: usize },
    /// Weights are compared by their checksum.
    Compare { checksum: u32 },
    /// The run ends.
    End,
}

/// Tells the other ranks what comes next.
pub(super) fn order(ranks: &Ranks, order: &Order) {
    if ranks.count() > 1 {
        ranks.broadcast(serde_json::to_vec(order).expect("orders are plain values"));
    }
}

/// Ends the other ranks' part of the run.
pub(super) fn dismiss(ranks: &Ranks) {
    order(ranks, &Order::End);
}

/// Sends what the other ranks begin with.
pub(super) fn begin(learner: &Learner, plan: &Plan, roles: &Roles) -> Result<(), TrainError> {
    let ranks = &learner.ranks;
    if ranks.count() == 1 {
        return Ok(());
    }
    order(ranks, &Order::Begin { plan: plan.to_toml(), roles: Box::new(roles.clone()) });
    let model = learner.model.valid().into_record().into_bytes();
    for bytes in [model, learner.optimizer.into_bytes()] {
        ranks.broadcast(bytes.map_err(|error| other_build(ranks, error))?.to_vec());
    }
    Ok(())
}

/// Checks that all ranks have the weights of this one, rank 0.
///
/// # Errors
/// [`RanksError::Drifted`].
pub(super) fn compare(learner: &Learner, step: usize) -> Result<(), TrainError> {
    let ranks = &learner.ranks;
    if ranks.count() == 1 {
        return Ok(());
    }
    order(ranks, &Order::Compare { checksum: checksum(&learner.model) });
    match ranks.which(false) {
        apart if apart.is_empty() => Ok(()),
        apart => Err(RanksError::Drifted { step, ranks: apart }.into()),
    }
}

/// Takes part in a run that rank 0 starts or resumes, on a rank other than 0.
///
/// # Errors
/// Another plan than rank 0's, data that cannot be read.
pub fn take_part(
    plan: &Plan,
    data: &DataSet,
    ranks: &Ranks,
    stop: &Stop,
) -> Result<(), TrainError> {
    let ranks = &ranks.with_stop(stop);
    let Order::Begin { plan: leading, roles } = next(ranks)? else {
        // There was nothing left to train.
        return Ok(());
    };
    let leading = Plan::from_toml(&leading).map_err(|error| other_build(ranks, error))?;
    let changes = leading.changes(plan);
    if !changes.is_empty() {
        return Err(RanksError::OtherPlan { rank: ranks.rank(), changes }.into());
    }
    let mut further = Further::begin(plan, data, *roles, ranks)?;
    loop {
        match next(ranks)? {
            Order::Step { step, epoch, batch } => further = further.step(step, epoch, batch)?,
            Order::Compare { checksum: expected } => {
                ranks.which(checksum(&further.learner.model) != expected);
            }
            Order::Begin { .. } | Order::End => return Ok(()),
        }
    }
}

fn next(ranks: &Ranks) -> Result<Order, TrainError> {
    let bytes = ranks.broadcast(vec![]);
    serde_json::from_slice(&bytes).map_err(|error| other_build(ranks, error))
}

fn other_build(ranks: &Ranks, why: impl ToString) -> TrainError {
    RanksError::OtherBuild { rank: ranks.rank(), why: why.to_string() }.into()
}

/// A rank's part of a run.
struct Further<'a> {
    plan: &'a Plan,
    roles: Roles,
    learner: Learner,
    pace: Pace,
    loader: Loader,
    /// The rest of an epoch, with its number and that of its next batch.
    epoch: Option<(usize, usize, Epoch)>,
}

impl<'a> Further<'a> {
    /// With model and optimizer as rank 0 has them.
    fn begin(
        plan: &'a Plan,
        data: &DataSet,
        roles: Roles,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        let device = plan.made_by.device.first()?.autodiff();
        let model = fresh(plan, &device)?;
        let mut learner = assemble(plan, model, roles.clone(), device, ranks)?.learner;
        let [model, optimizer] = [(); 2].map(|()| Bytes::from_bytes_vec(ranks.broadcast(vec![])));
        let record = ModuleRecord::from_bytes(model);
        let model = record.and_then(|record| learner.model.try_load_record(record));
        learner.model = model.map_err(|error| other_build(ranks, error))?;
        let record = OptimizerRecord::from_bytes(optimizer);
        let record = record.map_err(|error| other_build(ranks, error))?;
        learner.optimizer = learner.optimizer.load_record(record);
        // Rank 0 counts the images that cannot be read, and ends the run.
        let cache = plan.recipe.loader.open_cache()?;
        let config = LoaderConfig { max_bad: 1.0, cache, ..train_config(plan) };
        let loader = Loader::new(data.train.clone(), plan.derived.train_image, config)?;
        let pace = Pace::open(plan, &roles)?;
        Ok(Self { plan, roles, learner, pace, loader, epoch: None })
    }

    fn step(mut self, step: usize, epoch: usize, batch: usize) -> Result<Self, TrainError> {
        let batches = self.batches(epoch, batch)?;
        let mut learner = self.learner;
        learner.model = self.pace.with_norms(learner.model, step)?;
        let rates = self.pace.rates(step, || weight_norms(&learner.model, &self.roles))?;
        self.learner = learner.step(batches, step, &rates, None).0;
        Ok(self)
    }

    /// The batches of a step.
    fn batches(&mut self, epoch: usize, batch: usize) -> Result<Vec<Batch>, TrainError> {
        let count = self.plan.recipe.train.accumulate;
        let begun = self.epoch.take().filter(|(at, next, _)| (*at, *next) == (epoch, batch));
        let mut rest = match begun {
            Some((_, _, rest)) => rest,
            None => self.loader.in_shape(self.plan.train_shape(epoch))?.epoch_from(epoch, batch),
        };
        let batches = rest.by_ref().take(count).collect::<Result<_, _>>()?;
        self.epoch = Some((epoch, batch + count, rest));
        Ok(batches)
    }
}

/// A checksum of the learned weights, to the bit.
fn checksum(model: &Classifier) -> u32 {
    struct Sum(u32);
    impl ModuleVisitor for Sum {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 = crc32c::crc32c_append(self.0, param.val().into_data().as_bytes());
            }
        }
    }
    let mut sum = Sum(0);
    model.visit(&mut sum);
    sum.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use fixnorm_analysis::replay::with_norms;

    use crate::ranks::threads;
    use crate::recipe::keys::RecipeBuilder;
    use crate::run_dir::RunFiles;
    use crate::run_dir::event::{Event, Observer};
    use crate::session::{Outcome, Prepared, prepare, resume, start};
    use crate::{Provenance, Summary};

    /// Images of noise in `dir`: 108, of which a twelfth is for validation, and 16 to test.
    fn data(dir: &Path) {
        for (part, count) in [("train", 108_u32), ("t10k", 16)] {
            let file = |kind: &str, sizes: &[u32], value: &dyn Fn(u32) -> u8| {
                let mut bytes = vec![0, 0, 8, sizes.len() as u8];
                bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
                bytes.extend((0..sizes.iter().product()).map(value));
                let kind = format!("{part}-{kind}-idx{}-ubyte", sizes.len());
                fs::write(dir.join(kind), bytes).unwrap();
            };
            let noise = |i: u32| ((i + count).wrapping_mul(2_654_435_761) >> 24) as u8;
            file("images", &[count, 8, 8], &noise);
            file("labels", &[count], &|i| (i % 3) as u8);
        }
    }

    /// With what depends on how a batch is shared: dropout, mixed images, several batches a step, clipping.
    fn plan(dir: &Path, devices: &str, changes: &[&str]) -> (Plan, DataSet) {
        let data = format!("idx:{}", dir.display());
        let mut builder = RecipeBuilder::new().set("data", data.as_str()).unwrap();
        let settings = [
            "model=resnet8",
            "train.epochs=3",
            "train.batch_size=12",
            "train.accumulate=2",
            "train.dropout=0.2",
            "train.sync_batch_norm=true",
            "augment.mixup=0.4",
            "optimizer.clip_norm=1.0",
            "checkpoint.every_steps=5",
        ];
        for setting in settings.iter().chain(changes) {
            builder = builder.override_with(setting).unwrap();
        }
        let device = devices.parse().unwrap();
        let made_by = Provenance { version: "0".into(), commit: "0".into(), device };
        Plan::resolve(builder.build().unwrap(), made_by).unwrap()
    }

    /// Keeps the losses of steps, and stops the run after `until`.
    struct Losses {
        losses: Vec<f64>,
        until: usize,
        stop: Stop,
    }

    impl Observer for Losses {
        fn event(&mut self, event: &Event) {
            if let Event::Step(step) = event {
                self.losses.push(step.loss);
                if step.step + 1 == self.until {
                    self.stop.store(15, Ordering::Relaxed);
                }
            }
        }
    }

    /// Trains in `out`, or resumes, until so many steps are taken, and returns the losses of these.
    fn lead(out: &Path, plan: &Plan, data: &DataSet, ranks: &Ranks, until: usize) -> Vec<f64> {
        let stop = Stop::default();
        let mut observer = Losses { losses: vec![], until, stop: stop.clone() };
        let outcome = if RunFiles::new(out).has_plan() {
            resume(plan, data, out, &mut observer, ranks, &stop)
        } else {
            start(plan, data, out, &mut observer, ranks, &stop)
        };
        let is_finished = matches!(outcome.unwrap(), Outcome::Finished(_));
        assert_eq!(is_finished, until >= plan.derived.steps);
        observer.losses
    }

    /// As [`lead`], on so many ranks.
    fn train(out: &Path, plan: &Plan, data: &DataSet, ranks: usize, until: usize) -> Vec<f64> {
        let losses = threads::run(ranks, |ranks| {
            if ranks.leads() {
                return lead(out, plan, data, &ranks, until);
            }
            take_part(plan, data, &ranks, &Stop::default()).unwrap();
            vec![]
        });
        losses.into_iter().next().unwrap()
    }

    #[test]
    fn ranks_train_as_devices_do_and_resume_in_another_number() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        data(dir);
        let whole = 13;
        let (shared, images) = plan(dir, "cpu,cpu,cpu,cpu", &[]);
        let expected = lead(&dir.join("devices"), &shared, &images, &Ranks::default(), whole);
        let (plan, images) = plan(dir, "cpu", &[]);
        assert_eq!((plan.derived.steps, expected.len()), (12, 12));
        let four = train(&dir.join("ranks"), &plan, &images, 4, whole);
        for (found, expected) in four.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 * expected, "{four:?} {expected:?}");
        }
        assert_eq!(four.len(), 12);

        let out = dir.join("resumed");
        assert_eq!(train(&out, &plan, &images, 4, 7), four[..7]);
        // Dropout is drawn for each share, so these are other steps than four ranks take.
        let rest = train(&out, &plan, &images, 2, whole);
        assert!(rest.len() == 5 && rest.iter().all(|loss| loss.is_finite()), "{rest:?}");
        let summary: Option<Summary> = RunFiles::new(&out).result().unwrap();
        assert_eq!(summary.unwrap().steps, 12);
        // A finished run needs nobody.
        assert_eq!(train(&out, &plan, &images, 3, whole), [0.0; 0]);
    }

    #[test]
    fn a_rank_with_another_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path());
        let errors = threads::run(2, |ranks| {
            let changes = ["train.label_smoothing=0.2"];
            let (plan, data) = plan(dir.path(), "cpu", &changes[..ranks.rank()]);
            if ranks.leads() {
                let prepared = prepare(&plan, &data).unwrap();
                let learner = Learner { ranks, ..prepared.learner };
                begin(&learner, &plan, &prepared.roles).unwrap();
                return String::new();
            }
            let error = take_part(&plan, &data, &ranks, &Stop::default()).unwrap_err();
            // What rank 0 sends behind the plan.
            (0..2).for_each(|_| drop(ranks.broadcast(vec![])));
            error.to_string()
        });
        let expected = "rank 1 has another plan than rank 0: train.label_smoothing was 0.1, is 0.2";
        assert_eq!(errors[1], expected);
    }

    #[test]
    fn ranks_that_drift_apart_are_named() {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path());
        let (plan, data) = plan(dir.path(), "cpu", &[]);
        let compared = threads::run(3, |ranks| {
            let Prepared { roles, learner, .. } = prepare(&plan, &data).unwrap();
            let mut learner = Learner { ranks: ranks.clone(), ..learner };
            [false, true].map(|drifts| {
                if ranks.leads() {
                    return compare(&learner, 7).map_err(|error| error.to_string());
                }
                if drifts && ranks.rank() == 2 {
                    let (path, norm) = weight_norms(&learner.model, &roles).swap_remove(0);
                    let norms = [(path.as_str(), norm * 1.000_001)];
                    learner.model = with_norms(learner.model.clone(), &norms);
                }
                let Order::Compare { checksum: expected } = next(&ranks).unwrap() else {
                    panic!("an order to compare")
                };
                ranks.which(checksum(&learner.model) != expected);
                Ok(())
            })
        });
        assert_eq!(compared[0][0], Ok(()));
        let error = compared[0][1].as_ref().unwrap_err();
        assert!(error.contains("after step 7") && error.contains("ranks [2]"), "{error}");
    }
}

//! Two files of a run directory as timm's training script writes them, for the tools of its users: `summary.csv`, a line an
//! epoch, and `args.yaml`, the settings under timm's names.
//! Not here: the run's own record (`logs.rs`) and its plan (`dir.rs`).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use fixnorm::base::BaseName;
use fixnorm_nn::Loss;
use serde_json::{Value, json};

use crate::files::{read_text, write_atomic};
use crate::run_dir::event::{EpochRecord, Validation};
use crate::run_dir::layout::RunFiles;
use crate::{Plan, Precision, TrainError};

/// The columns that timm writes, in its order; accuracies in per cent.
const HEADER: &str = "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n";

/// `summary.csv`, open for further epochs.
pub(super) struct SummaryCsv {
    path: PathBuf,
}

impl SummaryCsv {
    /// Opens the file of a run, cut to its first `epochs` epochs.
    pub(super) fn open(run: &RunFiles, epochs: usize) -> Result<Self, TrainError> {
        let path = run.summary_path();
        let text = read_text(&path)?.unwrap_or_default();
        // Whole lines alone: a kill may have cut the last one short.
        let lines = text.split_inclusive('\n').skip(1).filter(|line| line.ends_with('\n'));
        let is_kept = |line: &&str| {
            line.split(',').next().and_then(|n| n.parse().ok()).is_some_and(|n: usize| n < epochs)
        };
        let kept: String = std::iter::once(HEADER).chain(lines.filter(is_kept)).collect();
        write_atomic(&path, kept.as_bytes())?;
        Ok(Self { path })
    }

    /// Appends an epoch, whose last step had this learning rate.
    pub(super) fn append(&self, record: &EpochRecord, lr: f64) -> Result<(), TrainError> {
        let file = OpenOptions::new().append(true).open(&self.path);
        let written = file.and_then(|mut file| file.write_all(line(record, lr).as_bytes()));
        written.map_err(TrainError::io("write", &self.path))
    }
}

fn line(record: &EpochRecord, lr: f64) -> String {
    let EpochRecord { epoch, train_loss, validation, .. } = record;
    let eval = match validation {
        Some(Validation { val_loss, val_top1, val_top5 }) => {
            format!("{val_loss},{},{}", 100.0 * val_top1, 100.0 * val_top5)
        }
        None => ",,".to_owned(),
    };
    format!("{epoch},{train_loss},{eval},{lr}\n")
}

/// The text of `args.yaml`: settings that timm has too under its names, sorted as its script sorts them, and every key of
/// the recipe below `fixnorm`.
pub(super) fn args_yaml(plan: &Plan) -> String {
    let mut lines: Vec<String> =
        arguments(plan).into_iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    lines.sort();
    lines.push("fixnorm:\n".to_owned());
    for (key, value) in plan.recipe.entries() {
        // JSON is YAML.
        let value = serde_json::to_value(value).unwrap_or_default();
        lines.push(format!("  {key}: {value}\n"));
    }
    lines.concat()
}

fn arguments(plan: &Plan) -> Vec<(&'static str, Value)> {
    let (recipe, derived) = (&plan.recipe, &plan.derived);
    let (train, optimizer, augment) = (&recipe.train, &recipe.optimizer, &recipe.augment);
    let [height, width, channels] = derived.image;
    let transform = recipe.transform();
    vec![
        ("model", json!(recipe.model)),
        ("data_dir", json!(recipe.data)),
        ("initial_checkpoint", json!(recipe.init.as_deref().unwrap_or_default())),
        ("num_classes", json!(derived.classes.len())),
        ("in_chans", json!(channels)),
        ("input_size", json!([channels, height, width])),
        ("mean", json!(derived.mean)),
        ("std", json!(derived.std)),
        ("interpolation", json!(transform.interpolation)),
        ("crop_pct", json!(derived.resize.map_or(1.0, |resize| resize.crop_ratio))),
        ("epochs", json!(train.epochs)),
        ("batch_size", json!(train.batch_size)),
        ("grad_accum_steps", json!(train.accumulate)),
        ("seed", json!(train.seed)),
        ("opt", json!(timm_optimizer(optimizer.base))),
        ("lr", json!(optimizer.lr)),
        ("momentum", json!(optimizer.momentum)),
        ("weight_decay", json!(optimizer.weight_decay)),
        ("clip_grad", json!(optimizer.clip_norm)),
        ("sched", json!(recipe.schedule.shape)),
        ("warmup_epochs", json!(recipe.schedule.warmup_epochs)),
        ("smoothing", json!(train.label_smoothing)),
        ("bce_loss", json!(train.loss == Loss::Bce)),
        ("bce_target_thresh", json!(train.bce_threshold)),
        ("drop", json!(train.dropout)),
        ("drop_path", json!(train.drop_path)),
        ("mixup", json!(augment.mixup.unwrap_or(0.0))),
        ("cutmix", json!(augment.cutmix.unwrap_or(0.0))),
        ("hflip", json!(augment.hflip)),
        ("aa", json!(augment.auto_augment)),
        ("reprob", json!(augment.random_erasing)),
        ("aug_repeats", json!(if augment.repeats > 1 { augment.repeats } else { 0 })),
        ("model_ema", json!(train.ema_decay.is_some())),
        ("model_ema_decay", json!(train.ema_decay)),
        ("amp", json!(train.precision != Precision::F32)),
        ("workers", json!(recipe.loader.workers)),
        ("log_interval", json!(recipe.log.every_steps)),
        ("device", json!(plan.made_by.device)),
    ]
}

/// timm's name of the optimizer with this base update: its `sgd` has Nesterov's momentum.
fn timm_optimizer(base: BaseName) -> Value {
    match base {
        BaseName::Sgd => json!("momentum"),
        base => json!(base),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Devices, Provenance, Recipe};

    fn record(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            step: 10 * (epoch + 1),
            train_loss: 1.5,
            train_top1: 0.5,
            validation: (epoch != 2).then_some(Validation {
                val_loss: 1.25,
                val_top1: 0.5,
                val_top5: 0.875,
            }),
            images_per_second: 1.0,
            data_wait: 0.0,
        }
    }

    #[test]
    fn a_resumed_summary_has_every_epoch_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = RunFiles::new(dir.path());
        let summary = SummaryCsv::open(&files, 0).unwrap();
        (0..3).for_each(|epoch| summary.append(&record(epoch), 0.5).unwrap());
        let line = |epoch: usize| format!("{epoch},1.5,1.25,50,87.5,0.5\n");
        let read = || fs::read_to_string(files.summary_path()).unwrap();
        assert_eq!(read(), [HEADER, &line(0), &line(1), "2,1.5,,,,0.5\n"].concat());
        // Epoch 1 was cut short by a kill, or is trained again from a checkpoint within it.
        let summary = SummaryCsv::open(&files, 1).unwrap();
        summary.append(&record(1), 0.25).unwrap();
        assert_eq!(read(), [HEADER, &line(0), &line(1).replace(",0.5\n", ",0.25\n")].concat());
        fs::write(files.summary_path(), [HEADER, &line(0), "1,1."].concat()).unwrap();
        SummaryCsv::open(&files, 2).unwrap();
        assert_eq!(read(), [HEADER, &line(0)].concat());
    }

    #[test]
    fn settings_have_timms_names() {
        let made_by = Provenance {
            version: "0".to_owned(),
            commit: "0".to_owned(),
            device: "cpu".parse::<Devices>().unwrap(),
        };
        let (plan, _) = Plan::resolve(Recipe::default(), made_by).unwrap();
        let text = args_yaml(&plan);
        for line in [
            "model: \"resnet8\"\n",
            "input_size: [1,28,28]\n",
            "opt: \"momentum\"\n",
            "smoothing: 0.1\n",
            "clip_grad: null\n",
            "fixnorm:\n",
            "  head.alpha: 4.0\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let keys: Vec<&str> = text.lines().take_while(|line| *line != "fixnorm:").collect();
        assert!(keys.is_sorted());
    }
}

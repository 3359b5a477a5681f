//! The settings of a run for TensorBoard's HPARAMS page, which compares runs of one directory, such as the trials of a
//! study: `tensorboard --logdir` of the directory above them.
//! Not here: the event file (`tensorboard.rs`), all settings of a run (`plan.toml`).
//!
//! Only the fields we write are declared, by their numbers in the `api.proto` and `plugin_data.proto` of TensorBoard's
//! plugin.

use prost::Message;
use toml::Value;

use crate::Plan;

/// The plugin's name.
pub(super) const PLUGIN: &str = "hparams";

/// The keys that are shown, the same for all runs: TensorBoard takes the list from one of them.
const KEYS: [&str; 13] = [
    "model",
    "data",
    "train.epochs",
    "train.batch_size",
    "train.label_smoothing",
    "train.seed",
    "optimizer.base",
    "optimizer.step_rule",
    "optimizer.constraint",
    "optimizer.lr",
    "optimizer.weight_decay",
    "head.control",
    "head.alpha",
];

/// The curves whose last values are shown.
const METRICS: [&str; 4] = ["val/top1", "val/loss", "epoch/train_loss", "test/top1"];

/// `HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(message, optional, tag = "2")]
    experiment: Option<Experiment>,
    #[prost(message, optional, tag = "3")]
    session_start_info: Option<SessionStartInfo>,
    #[prost(message, optional, tag = "4")]
    session_end_info: Option<SessionEndInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Experiment {
    #[prost(message, repeated, tag = "4")]
    hparam_infos: Vec<HparamInfo>,
    #[prost(message, repeated, tag = "5")]
    metric_infos: Vec<MetricInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct HparamInfo {
    #[prost(string, tag = "1")]
    name: String,
    /// 1 for a text, 3 for a number.
    #[prost(int32, tag = "4")]
    data_type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    name: Option<MetricName>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricName {
    #[prost(string, tag = "2")]
    tag: String,
}

#[derive(Clone, PartialEq, Message)]
struct SessionStartInfo {
    /// A map, whose entries are messages of a key and a value.
    #[prost(message, repeated, tag = "1")]
    hparams: Vec<Hparam>,
}

#[derive(Clone, PartialEq, Message)]
struct Hparam {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<HparamValue>,
}

/// `google.protobuf.Value`, of which one field is set.
#[derive(Clone, PartialEq, Message)]
struct HparamValue {
    #[prost(double, optional, tag = "2")]
    number: Option<f64>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionEndInfo {
    /// 1 for success.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The settings of a run, as tags with the plugin's data.
pub(super) fn start(plan: &Plan) -> [(&'static str, Vec<u8>); 2] {
    let entries = plan.recipe.entries();
    let found = KEYS.iter().filter_map(|key| entries.iter().find(|(known, _)| known == key));
    let hparams: Vec<Hparam> = found
        .map(|(key, value)| Hparam { key: key.clone(), value: Some(HparamValue::of(value)) })
        .collect();
    let info = |hparam: &Hparam| {
        let is_text = hparam.value.as_ref().is_some_and(|value| value.text.is_some());
        HparamInfo { name: hparam.key.clone(), data_type: if is_text { 1 } else { 3 } }
    };
    let metric = |tag: &&str| {
        let name = MetricName { tag: (*tag).to_owned() };
        MetricInfo { name: Some(name) }
    };
    let experiment = Experiment {
        hparam_infos: hparams.iter().map(info).collect(),
        metric_infos: METRICS.iter().map(metric).collect(),
    };
    let experiment = PluginData { experiment: Some(experiment), ..PluginData::default() };
    let session = SessionStartInfo { hparams };
    let session = PluginData { session_start_info: Some(session), ..PluginData::default() };
    [
        ("_hparams_/experiment", experiment.encode_to_vec()),
        ("_hparams_/session_start_info", session.encode_to_vec()),
    ]
}

/// The end of a run that has a result.
pub(super) fn end() -> [(&'static str, Vec<u8>); 1] {
    let info = SessionEndInfo { status: 1 };
    let data = PluginData { session_end_info: Some(info), ..PluginData::default() };
    [("_hparams_/session_end_info", data.encode_to_vec())]
}

impl HparamValue {
    fn of(value: &Value) -> Self {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self { number, text: number.is_none().then(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Devices, Provenance, Recipe};

    #[test]
    fn settings_are_numbers_and_texts_under_their_keys() {
        let made_by = Provenance {
            version: "0".to_owned(),
            commit: "0".to_owned(),
            device: "cpu".parse::<Devices>().unwrap(),
        };
        let mut recipe = Recipe::default();
        recipe.optimizer.lr = Some(0.25);
        let (plan, _) = Plan::resolve(recipe, made_by).unwrap();
        let [(experiment_tag, experiment), (start_tag, session)] = start(&plan);
        assert_eq!(
            (experiment_tag, start_tag),
            ("_hparams_/experiment", "_hparams_/session_start_info")
        );
        let data = PluginData::decode(&session[..]).unwrap();
        let hparams = data.session_start_info.unwrap().hparams;
        assert_eq!(hparams.len(), KEYS.len());
        let value = |key: &str| {
            hparams.iter().find(|hparam| hparam.key == key).unwrap().value.clone().unwrap()
        };
        assert_eq!(value("optimizer.lr").number, Some(0.25));
        assert_eq!(value("train.epochs").number, Some(16.0));
        assert_eq!(value("model").text.as_deref(), Some("resnet8"));
        let infos = PluginData::decode(&experiment[..]).unwrap().experiment.unwrap();
        let kind = |key: &str| infos.hparam_infos.iter().find(|i| i.name == key).unwrap().data_type;
        assert_eq!((kind("optimizer.lr"), kind("head.control")), (3, 1));
        assert_eq!(infos.metric_infos.len(), METRICS.len());
    }
}

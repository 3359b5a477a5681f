//! Finds the state dict among the entries of a checkpoint.
//! Not here: reading the entries (`file.rs`, `pytorch.rs`); prefixes that only a model's own names tell (`fit.rs`).
//!
//! Programs save a model under a key of theirs, beside optimizer states, counters, loss weights and metrics, and
//! wrappers of a model add a segment to its names:
//!
//! | written by | entries |
//! |---|---|
//! | `torch.optim.swa_utils.AveragedModel` | `n_averaged`, `module.conv1.weight` |
//! | torchvision's reference script | `model.conv1.weight`, `model_ema.n_averaged`, `model_ema.module.conv1.weight` |
//! | timm | `state_dict.conv1.weight`, `state_dict_ema.conv1.weight` |
//! | Lightning | `state_dict.model.conv1.weight`, `state_dict.criterion.weight`, `state_dict.accuracy.tp` |
//! | `torch.compile` of a layer | `layer1._orig_mod.0.conv1.weight` |

use std::collections::BTreeMap;

use super::tensor::StoredTensor;

type Tensors = BTreeMap<String, StoredTensor>;

/// Keys that a state dict lies under, the first that is there wins: averaged weights before others, as timm prefers
/// them.
const KEYS: [&str; 22] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "params_ema",
    "net_ema",
    "ema",
    "swa_state_dict",
    "swa_model",
    "model_swa",
    "swa",
    "averaged_model",
    "avg_model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "state",
];

/// Segments that wrappers put into names: data parallel and averaged models, compiled ones, sharded ones,
/// checkpointed activations, Lightning's Fabric.
const SEGMENTS: [&str; 5] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// The tensors of the state dict under their plain names, and the keys it was found under, joined by dots.
pub(super) fn find(mut tensors: Tensors) -> (Tensors, Option<String>) {
    let mut path: Vec<&str> = vec![];
    loop {
        tensors = without_segments(tensors);
        let holds_weights = |key: &&str| {
            let mut entries = tensors.iter();
            entries.any(|(name, tensor)| {
                below(name, key).is_some_and(|rest| !is_counter(rest, tensor))
            })
        };
        let Some(key) = KEYS.into_iter().find(holds_weights) else { break };
        path.push(key);
        let entries = tensors.into_iter();
        tensors = entries
            .filter_map(|(name, tensor)| below(&name, key).map(str::to_owned).zip(Some(tensor)))
            .collect();
    }
    tensors.retain(|name, tensor| !is_counter(name, tensor));
    (tensors, (!path.is_empty()).then(|| path.join(".")))
}

/// `name` without the key before it.
fn below<'a>(name: &'a str, key: &str) -> Option<&'a str> {
    name.strip_prefix(key)?.strip_prefix('.')
}

/// Returns whether an entry counts something beside a model, as `n_averaged` and `step` do: every parameter of a model
/// belongs to a layer, so its name has a dot.
pub(super) fn is_counter(name: &str, tensor: &StoredTensor) -> bool {
    !name.contains('.') && tensor.shape.iter().product::<usize>() == 1
}

/// `tensors` without the wrappers' segments in their names, unless two would then have the same name.
fn without_segments(tensors: Tensors) -> Tensors {
    let plain = |name: &str| {
        let segments: Vec<&str> =
            name.split('.').filter(|segment| !SEGMENTS.contains(segment)).collect();
        if segments.is_empty() { name.to_owned() } else { segments.join(".") }
    };
    let renamed: BTreeMap<String, &str> =
        tensors.keys().map(|name| (plain(name), name.as_str())).collect();
    if renamed.len() < tensors.len() {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (plain(&name), tensor)).collect()
}

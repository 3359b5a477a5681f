//! Files in and out: which fit, which do not, and damaged ones.

use std::io::Write;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::*;
use crate::{Classifier, Input, ModelSpec};

const INPUT: Input = Input { channels: 1, classes: 5 };

fn spec() -> &'static ModelSpec {
    ModelSpec::find("resnet8").unwrap()
}

fn saved(input: Input, seed: u64) -> Vec<u8> {
    let model = spec().init(input, seed, &Device::flex());
    to_safetensors(&model, spec(), &Metadata::new()).unwrap()
}

fn load_into(seed: u64, bytes: Vec<u8>, fit: Fit) -> Result<Loaded, WeightsError> {
    let file = WeightsFile::from_safetensors(bytes)?;
    load(spec().init(INPUT, seed, &Device::flex()), spec(), &file, fit)
}

/// Names, shapes and values of the model's tensors, counters left out.
fn tensors(model: &Classifier) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = to_safetensors(model, spec(), &Metadata::new()).unwrap();
    let file = WeightsFile::from_safetensors(bytes).unwrap();
    let names = file.names().filter(|name| !name.ends_with("num_batches_tracked"));
    names
        .map(|name| {
            (name.to_owned(), file.shape(name).unwrap().to_vec(), file.floats(name).unwrap())
        })
        .collect()
}

/// A safetensors file of tensors of one type.
fn written(dtype: Dtype, tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn round_trip_gives_the_same_logits_with_running_statistics() {
    let device = Device::flex().autodiff();
    let model = spec().init(INPUT, 1, &device);
    let images =
        |device: &Device| Tensor::<4>::random([3, 9, 11, 1], Distribution::Default, device);
    for _ in 0..3 {
        model.forward(images(&device));
    }
    let metadata = Metadata::from([("classes".to_owned(), "a,b".to_owned())]);
    let bytes = to_safetensors(&model, spec(), &metadata).unwrap();
    let file = WeightsFile::from_safetensors(bytes.clone()).unwrap();
    assert_eq!(file.metadata(), &metadata);
    let (header, infos) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
    assert_eq!(infos.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!(file.shape("bn1.num_batches_tracked"), Some(&[][..]));

    let loaded = load(spec().init(INPUT, 2, &device), spec(), &file, Fit::Exact).unwrap();
    assert!(loaded.left.is_empty());
    let x = images(&device.clone().inner());
    let expected = model.valid().forward(x.clone()).into_data();
    assert_eq!(loaded.model.valid().forward(x).into_data(), expected);
    assert_eq!(to_safetensors(&loaded.model, spec(), &metadata).unwrap(), bytes);
}

#[test]
fn mismatch_holds_every_tensor_and_prints_counts_and_examples() {
    let large = ModelSpec::find("resnet20").unwrap();
    let other = Input { channels: 3, classes: 4 };
    let model = large.init(other, 1, &Device::flex());
    let bytes = to_safetensors(&model, large, &Metadata::new()).unwrap();
    let error = load_into(1, bytes, Fit::Exact).unwrap_err();
    let WeightsError::Mismatch { mismatch, .. } = &error else {
        panic!("{error}");
    };
    assert!(mismatch.missing.is_empty());
    // Two more blocks in each of three stages, of two convolutions and two norms of four.
    assert_eq!(mismatch.unexpected.len(), 3 * 2 * (2 + 2 * 4));
    assert_eq!(mismatch.misshapen.len(), 3, "{mismatch:?}");
    assert_eq!(
        error.to_string(),
        "the weights do not fit resnet8: unexpected: 60 tensors, layer1.1.bn1.bias, layer1.1.bn1.running_mean, \
         layer1.1.bn1.running_var, layer1.1.bn1.weight, layer1.1.bn2.bias and 55 more; of another shape: 3 tensors, \
         conv1.weight (expected [16, 1, 3, 3], found [16, 3, 3, 3]), fc.weight (expected [5, 64], found [4, 64]), \
         fc.bias (expected [5], found [4]); the nearest model is resnet20, of whose 97 tensors 97 fit"
    );
}

#[test]
fn a_message_is_short_whatever_the_file() {
    let foreign = |count: usize, name: &dyn Fn(usize) -> String| {
        let tensors: Vec<_> = (0..count).map(|i| (name(i), vec![2], vec![0; 8])).collect();
        load_into(1, written(Dtype::F32, &tensors), Fit::Exact).unwrap_err().to_string()
    };
    let transformer = foreign(5000, &|i| format!("encoder.layers.{i}.attention.query.weight"));
    assert!(transformer.contains("unexpected: 5000 tensors, encoder.layers.0."), "{transformer}");
    assert!(transformer.contains("and 4995 more"), "{transformer}");
    assert!(!transformer.contains("nearest"), "{transformer}");
    let long = foreign(9, &|i| format!("{}.{i}", "long".repeat(500)));
    for text in [transformer, long] {
        assert!(text.len() < 1000, "{} bytes: {text}", text.len());
    }
}

#[test]
fn a_head_for_other_classes_is_left_and_nothing_else() {
    let bytes = saved(Input { classes: 7, ..INPUT }, 1);
    assert!(matches!(load_into(2, bytes.clone(), Fit::Exact), Err(WeightsError::Mismatch { .. })));
    let loaded = load_into(2, bytes, Fit::OtherHead).unwrap();
    let left: Vec<_> = loaded.left.misshapen.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(left, ["fc.weight", "fc.bias"]);
    let (own, file) =
        (spec().init(INPUT, 2, &Device::flex()), spec().init(INPUT, 1, &Device::flex()));
    let (own, file) = (tensors(&own), tensors(&file));
    for ((tensor, own), file) in tensors(&loaded.model).iter().zip(&own).zip(&file) {
        let expected = if tensor.0.starts_with("fc.") { own } else { file };
        assert_eq!(tensor, expected);
    }
    // Another stem is another model.
    let bytes = saved(Input { channels: 3, classes: 7 }, 1);
    assert!(matches!(load_into(2, bytes, Fit::OtherHead), Err(WeightsError::Mismatch { .. })));
}

#[test]
fn partial_weights_take_what_fits() {
    let device = Device::flex();
    let some: Vec<_> = tensors(&spec().init(INPUT, 1, &device))
        .into_iter()
        .filter(|(name, ..)| name.starts_with("layer2."))
        .map(|(name, shape, values)| {
            (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let bytes = written(Dtype::F32, &some);
    let loaded = load_into(2, bytes, Fit::Partial).unwrap();
    assert_eq!(loaded.left.missing.len(), tensors(&loaded.model).len() - some.len());
    let own = tensors(&spec().init(INPUT, 2, &device));
    let changed: Vec<_> =
        tensors(&loaded.model).into_iter().zip(own).filter(|(new, old)| new != old).collect();
    assert!(!changed.is_empty() && changed.iter().all(|(new, _)| new.0.starts_with("layer2.")));

    let none = written(Dtype::F32, &[("foreign".to_owned(), vec![1], vec![0; 4])]);
    assert!(matches!(load_into(2, none, Fit::Partial), Err(WeightsError::Mismatch { .. })));
}

#[test]
fn every_kind_of_float_is_read() {
    let values = [1.5f32, -0.25, 1024.0];
    let bytes = |dtype| -> Vec<u8> {
        let each = values.iter();
        match dtype {
            Dtype::F64 => each.flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            Dtype::F32 => each.flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => each.flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            _ => each.flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        }
    };
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        let file = written(dtype, &[("a".to_owned(), vec![3, 1], bytes(dtype))]);
        let file = WeightsFile::from_safetensors(file).unwrap();
        assert_eq!(file.floats("a").unwrap(), values, "{dtype:?}");
    }
    let whole = written(Dtype::I32, &[("a".to_owned(), vec![3], vec![0; 12])]);
    let error = WeightsFile::from_safetensors(whole).unwrap().floats("a").unwrap_err();
    assert_eq!(error.to_string(), "tensor a has type I32; expected F32, F16, BF16 or F64");
}

/// The file of `seed`, its tensors renamed, with these entries of one value beside them.
fn renamed(seed: u64, name: impl Fn(&str) -> String, beside: &[&str]) -> WeightsFile {
    let own = tensors(&spec().init(INPUT, seed, &Device::flex())).into_iter();
    let bytes = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let own = own.map(|(own, shape, values)| (name(&own), shape, bytes(values)));
    let beside = beside.iter().map(|name| ((*name).to_owned(), vec![], vec![0; 4]));
    let all: Vec<_> = own.chain(beside).collect();
    WeightsFile::from_safetensors(written(Dtype::F32, &all)).unwrap()
}

/// Checks that every tensor of the model of `seed` is read from the file.
fn gives_all(file: &WeightsFile, seed: u64) {
    assert_eq!(input(spec(), file), Some(INPUT));
    let found: Vec<_> = fitting_models(file).iter().map(|spec| spec.name).collect();
    assert_eq!(found, ["resnet8"]);
    let own = spec().init(INPUT, 9, &Device::flex());
    let loaded = load(own, spec(), file, Fit::Exact).unwrap();
    assert_eq!(tensors(&loaded.model), tensors(&spec().init(INPUT, seed, &Device::flex())));
    assert!(loaded.left.is_empty());
}

#[test]
fn averaged_lightning_and_wrapped_models_are_read() {
    for (prefix, beside, wrapper) in [
        ("module.", &["n_averaged"][..], None),
        ("module.module.", &["n_averaged"], None),
        ("_orig_mod.module.", &["_orig_mod.n_averaged"], None),
        ("_orig_mod.", &[], None),
        ("module._orig_mod.", &[], None),
        ("_orig_mod.module._orig_mod.", &[], None),
        ("_fsdp_wrapped_module.", &[], None),
        ("state_dict.module.", &["epoch"], Some("state_dict")),
        ("state_dict.model.", &["state_dict.criterion.weight"], Some("state_dict.model")),
        ("state_dict.model._orig_mod.", &["state_dict.train_acc.tp"], Some("state_dict.model")),
        ("state_dict.net.module.", &["state_dict.loss.pos_weight"], Some("state_dict.net")),
        ("state_dict_ema.module.", &["state_dict.conv1.weight"], Some("state_dict_ema")),
        ("model_ema.module.", &["model_ema.n_averaged", "model.conv1.weight"], Some("model_ema")),
        ("model_ema.", &["model_ema.decay", "optimizer.state.0.exp_avg"], Some("model_ema")),
        ("ema.module.", &["ema.n_averaged", "model.x.y"], Some("ema")),
        ("ema_model.", &["initted", "step", "online_model.conv1.weight"], Some("ema_model")),
        (
            "state_dict.ema_model.module.",
            &["state_dict.ema_model.n_averaged"],
            Some("state_dict.ema_model"),
        ),
        ("model.state_dict.", &[], Some("model.state_dict")),
        ("params.", &[], Some("params")),
        // Names of somebody's own.
        ("backbone.", &[], None),
        ("swa_weights.module.", &["swa_weights.n_averaged"], None),
        (
            "state_dict.backbone.",
            &["state_dict.criterion.weight", "state_dict.head2.x"],
            Some("state_dict"),
        ),
        ("state_dict.student.cnn.", &[], Some("state_dict")),
        // A Lightning module that is the model itself.
        (
            "state_dict.",
            &["state_dict.criterion.weight", "state_dict.val_acc.tp"],
            Some("state_dict"),
        ),
    ] {
        let file = renamed(3, |name| format!("{prefix}{name}"), beside);
        assert_eq!(file.wrapper(), wrapper, "{prefix}");
        gives_all(&file, 3);
    }
    // Layers that are wrapped one by one.
    gives_all(&renamed(3, |name| name.replace("layer1.", "layer1._orig_mod."), &[]), 3);
    gives_all(&renamed(3, |name| name.replace("0.conv1", "0.module.conv1"), &["n_averaged"]), 3);
}

#[test]
fn averaged_weights_come_first() {
    let [plain, averaged] = [1, 2].map(|seed| tensors(&spec().init(INPUT, seed, &Device::flex())));
    for (own, other) in [
        ("model.", "model_ema.module."),
        ("state_dict.", "state_dict_ema."),
        ("state_dict.model.", "state_dict.model_ema.module."),
        ("online.", "online_ema."),
    ] {
        let of = |prefix: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]| -> Vec<_> {
            let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let tensors = tensors.iter();
            tensors.map(|(n, shape, v)| (format!("{prefix}{n}"), shape.clone(), bytes(v))).collect()
        };
        let both = [of(own, &plain), of(other, &averaged)].concat();
        gives_all(&WeightsFile::from_safetensors(written(Dtype::F32, &both)).unwrap(), 2);
    }
}

#[test]
fn two_networks_of_one_kind_are_a_question() {
    let [first, second] = [1, 2].map(|seed| tensors(&spec().init(INPUT, seed, &Device::flex())));
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let named = [("encoder_q", first), ("encoder_k", second)].into_iter().flat_map(|(key, all)| {
        let all = all.into_iter();
        all.map(move |(name, shape, v)| (format!("module.{key}.{name}"), shape, bytes(&v)))
    });
    let bytes = written(Dtype::F32, &named.collect::<Vec<_>>());
    let error = load_into(5, bytes, Fit::Exact).unwrap_err().to_string();
    assert_eq!(
        error,
        "the file holds the tensors of resnet8 more than once, under encoder_k. and encoder_q.; save one of them to a \
         file of its own"
    );
}

#[test]
fn a_part_that_is_no_loss_is_refused() {
    let file = renamed(3, str::to_owned, &["attention.weight", "criterion.weight"]);
    let own = spec().init(INPUT, 9, &Device::flex());
    let error = load(own, spec(), &file, Fit::Exact).unwrap_err().to_string();
    assert!(error.contains("unexpected: 1 tensor, attention.weight"), "{error}");
}

#[test]
fn wrappers_are_removed() {
    let one = |names: &[&str]| {
        let tensors: Vec<_> =
            names.iter().map(|name| ((*name).to_owned(), vec![2], vec![0; 8])).collect();
        let file = WeightsFile::from_safetensors(written(Dtype::F32, &tensors)).unwrap();
        let found: Vec<String> = file.names().map(str::to_owned).collect();
        (file.wrapper().map(str::to_owned), found.join(" "))
    };
    let found = |wrapper: Option<&str>, names: &str| (wrapper.map(str::to_owned), names.to_owned());
    assert_eq!(one(&["a.weight", "b"]), found(None, "a.weight b"));
    assert_eq!(one(&["module.a", "module.b"]), found(None, "a b"));
    // Two tensors of one name would be left.
    assert_eq!(one(&["module.a", "a"]), found(None, "a module.a"));
    assert_eq!(
        one(&["state_dict.module.a", "optimizer.x", "epoch"]),
        found(Some("state_dict"), "a")
    );
    assert_eq!(one(&["model.a", "model_ema.b"]), found(Some("model_ema"), "b"));
    assert_eq!(one(&["module._orig_mod.a"]), found(None, "a"));
    // A name that only begins like a wrapper.
    assert_eq!(one(&["network_x.a"]), found(None, "network_x.a"));
}

#[test]
fn class_names_of_a_file_of_others() {
    let tensor = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let entries = [("format", "pt"), ("classes", r#"["cat", "dog"]"#)];
    let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let bytes = safetensors::serialize([("a.b", tensor)], Some(entries.into())).unwrap();
    let file = WeightsFile::from_safetensors(bytes).unwrap();
    assert_eq!(file.class_names(), Some(&["cat".to_owned(), "dog".to_owned()][..]));
    assert_eq!(renamed(1, str::to_owned, &[]).class_names(), None);
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut all: Vec<_> = tensors(&spec().init(INPUT, 1, &Device::flex()));
    let broken = all.iter_mut().find(|(name, ..)| name == "layer1.0.bn2.running_var").unwrap();
    broken.2[3] = f32::NAN;
    broken.2[5] = f32::INFINITY;
    let bytes = |v: &Vec<f32>| v.iter().flat_map(|v| v.to_le_bytes()).collect();
    let all: Vec<_> = all
        .iter()
        .map(|(name, shape, values)| (name.clone(), shape.clone(), bytes(values)))
        .collect();
    for fit in [Fit::Exact, Fit::Partial] {
        let error = load_into(1, written(Dtype::F32, &all), fit).unwrap_err().to_string();
        assert_eq!(error, "tensor layer1.0.bn2.running_var: 2 of its 16 values are not finite");
    }
}

#[test]
fn the_model_is_known_by_its_tensors() {
    gives_all(&WeightsFile::from_safetensors(saved(INPUT, 1)).unwrap(), 1);
    let other = written(Dtype::F32, &[("a.b".to_owned(), vec![1], vec![0; 4])]);
    let other = WeightsFile::from_safetensors(other).unwrap();
    assert!(fitting_models(&other).is_empty());
    assert_eq!((input(spec(), &other), nearest_model(&other)), (None, None));
}

/// Opens a file of these bytes.
fn opened(name: &str, bytes: &[u8]) -> Result<WeightsFile, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    WeightsFile::open(&path)
}

#[test]
fn torn_and_lying_safetensors_are_refused() {
    let whole = saved(INPUT, 1);
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let text = String::from_utf8(whole[8..8 + header].to_vec()).unwrap();
    let with_header = |text: &str| {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &whole[8 + header..]].concat()
    };
    let huge = text.replacen("\"shape\":[5,64]", "\"shape\":[4611686018427387904,64]", 1);
    let beyond = text.replacen("[0,", "[99999999999,", 1);
    assert!(huge != text && beyond != text);
    for bad in [
        whole[..whole.len() - 1].to_vec(),
        whole[..8 + header / 2].to_vec(),
        whole[..5].to_vec(),
        [&whole[..], &[0]].concat(),
        with_length(u64::MAX),
        with_length(99_999_999),
        with_length(header as u64 - 1),
        with_header(&huge),
        with_header(&beyond),
        b"PK\x03\x04 not this".to_vec(),
    ] {
        let error = opened("a.safetensors", &bad).unwrap_err();
        assert!(error.to_string().starts_with("not a safetensors file: "), "{error}");
    }
    for name in ["a.safetensors", "a.pth"] {
        let error = opened(name, b"").unwrap_err();
        assert_eq!(error.to_string(), "not a weights file: it is empty");
    }
    let error = opened("a.bin", b"neither one nor the other").unwrap_err();
    assert!(
        error.to_string().starts_with("not a safetensors file or PyTorch checkpoint"),
        "{error}"
    );
}

#[test]
fn initial_values_depend_on_the_seed_alone() {
    let device = Device::flex().autodiff();
    let bytes = |seed| {
        to_safetensors(&spec().init(INPUT, seed, &device), spec(), &Metadata::new()).unwrap()
    };
    let first = bytes(3);
    device.seed(99);
    assert_eq!(first, bytes(3));
    assert_ne!(first, bytes(4));
}

//! Reads PyTorch checkpoints of every kind, written by PyTorch (`benches/peers/checkpoint_fixture.py`), whole and damaged
//! ones.

use std::fs;
use std::path::{Path, PathBuf};

use fixnorm_nn::weights::{WeightsError, WeightsFile};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The script's formula.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.25 - 1.0).collect()
}

#[test]
fn every_kind_of_checkpoint_gives_the_same_tensors() {
    for (name, wrapper) in [
        ("state_dict.pth", None),
        ("legacy.pth", None),
        ("wrapped.pth", Some("state_dict")),
        ("averaged.pth", Some("state_dict_ema")),
        ("swa.pth", None),
        ("torchvision_ema.pth", Some("model_ema")),
        ("lightning.ckpt", Some("state_dict.model")),
        ("compiled.pth", None),
    ] {
        let file = WeightsFile::open(&fixture(name)).unwrap();
        assert_eq!(file.wrapper(), wrapper, "{name}");
        let names: Vec<&str> = file.names().collect();
        let expected = [
            "behind",
            "bn.num_batches_tracked",
            "brain",
            "conv.weight",
            "double",
            "half",
            "parameter",
            "turned",
        ];
        assert_eq!(names, expected, "{name}");
        assert_eq!(file.shape("conv.weight"), Some(&[2, 3, 1, 2][..]));
        assert_eq!(file.floats("conv.weight").unwrap(), values(12));
        for float in ["half", "brain", "double"] {
            assert_eq!(file.floats(float).unwrap(), values(5), "{name}: {float}");
        }
        assert_eq!(file.floats("parameter").unwrap(), values(3));
        assert_eq!(file.floats("behind").unwrap(), values(10)[4..]);
        assert_eq!(file.shape("turned"), Some(&[3, 4][..]));
        let turned: Vec<f32> = (0..12).map(|i| values(12)[i % 4 * 3 + i / 4]).collect();
        assert_eq!(file.floats("turned").unwrap(), turned);
        let error = file.floats("bn.num_batches_tracked").unwrap_err();
        assert!(matches!(error, WeightsError::Dtype { .. }), "{error}");
        assert!(file.floats("none").unwrap_err().to_string().starts_with("tensor none"));
    }
}

#[test]
fn a_pickle_that_calls_functions_is_refused_and_runs_nothing() {
    // Without a zip: a bare call, the textbook attack.
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare.pth");
    let pickle = b"\x80\x02cposix\nsystem\nX\x16\0\0\0touch fixnorm-ran-code\x85R.";
    fs::write(&bare, pickle).unwrap();
    for path in [fixture("code_root.pth"), fixture("code_beside.pth"), bare] {
        let error = WeightsFile::open(&path).unwrap_err();
        let WeightsError::Code { callable } = &error else { panic!("{error}") };
        assert_eq!(callable, "posix.system");
    }
    assert!(!Path::new("fixnorm-ran-code").exists());
}

#[test]
fn class_names_beside_the_tensors_are_read() {
    for (name, expected) in [
        ("state_dict.pth", None),
        ("torchvision_ema.pth", Some(["cat", "dog"])),
        ("lightning.ckpt", Some(["cat", "dog"])),
    ] {
        let file = WeightsFile::open(&fixture(name)).unwrap();
        let found: Option<Vec<&str>> =
            file.class_names().map(|names| names.iter().map(String::as_str).collect());
        assert_eq!(found.as_deref(), expected.as_ref().map(|names| &names[..]), "{name}");
    }
}

#[test]
fn a_tensor_that_claims_more_than_the_file_has_is_refused() {
    let error = WeightsFile::open(&fixture("repeated.pth")).unwrap_err().to_string();
    assert!(error.starts_with("tensor huge: declares 400000000 bytes"), "{error}");
}

/// Opens a file of these bytes and reads all of it; returns whether that succeeds, and must not panic.
fn survive(dir: &Path, bytes: &[u8]) -> bool {
    let path = dir.join("a.pth");
    fs::write(&path, bytes).unwrap();
    match WeightsFile::open(&path) {
        Ok(file) => file.names().all(|name| file.floats(name).is_ok()),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn truncated_and_changed_checkpoints_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["state_dict.pth", "legacy.pth", "wrapped.pth"] {
        let whole = fs::read(fixture(name)).unwrap();
        for cut in (0..whole.len()).step_by(29) {
            assert!(!survive(dir.path(), &whole[..cut]), "{name} cut at {cut}");
        }
        let mut changed = whole.clone();
        for place in (0..whole.len()).step_by(3) {
            changed[place] ^= 1 << (place % 8);
            survive(dir.path(), &changed);
            changed[place] = whole[place];
        }
    }
}

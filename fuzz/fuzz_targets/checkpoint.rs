//! Any bytes as a weights file on the disk, of either format: opened and every tensor read.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use fixnorm_nn::weights::WeightsFile;
use libfuzzer_sys::fuzz_target;

// One a process: the readers want a path.
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fixnorm-fuzz-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*PATH, bytes).expect("the temporary directory can be written");
    let Ok(file) = WeightsFile::open(&PATH) else { return };
    for name in file.names() {
        let size: usize = file.shape(name).expect("a name of the file").iter().product();
        if let Ok(values) = file.floats(name) {
            assert_eq!(values.len(), size);
        }
    }
});

//! Any bytes as a shard, Parquet if they begin as one and a tar file otherwise: indexed, every sample read.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use fixnorm_data::{Columns, DataSpec, LoadOptions};
use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    // libFuzzer's hook aborts at any panic, also at those of the crate `parquet` that are caught.
    std::panic::set_hook(Box::new(|_| ()));
    let dir = std::env::temp_dir().join(format!("fixnorm-fuzz-shard-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
    dir
});

fuzz_target!(|bytes: &[u8]| {
    let (name, spec): (_, fn(PathBuf) -> DataSpec) = match bytes.starts_with(b"PAR1") {
        true => ("0.parquet", |pattern| DataSpec::Parquet { pattern, columns: Columns::default() }),
        false => ("0.tar", |pattern| DataSpec::Tar { pattern, columns: Columns::default() }),
    };
    let path = DIR.join(name);
    std::fs::write(&path, bytes).expect("the temporary directory can be written");
    let options = LoadOptions { cache: None, ..LoadOptions::default() };
    let Ok(data) = spec(path).load_with(&options) else { return };
    for source in [data.train, data.val] {
        for index in 0..source.len() {
            let _ = source.sample(index);
            assert!((source.label(index) as usize) < data.class_names.len());
        }
    }
});

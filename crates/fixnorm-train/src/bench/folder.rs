//! A directory of directories of pictures, read as they are: enough to measure decoding with.
//! Not here: data sets by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixnorm_data::{DataError, DataSet, Encoded, Normalization, Sample, Source, picture_files};

struct Folder {
    files: Vec<(PathBuf, u32)>,
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let name = self.files[index].0.clone();
        match std::fs::read(&name) {
            Ok(bytes) => Ok(Sample::Encoded(Encoded { bytes, name })),
            Err(source) => Err(DataError::Read { path: name, source }),
        }
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].1
    }
}

/// `DIR/train/CLASS/*`.
pub(super) fn load(dir: &Path) -> Result<DataSet, DataError> {
    let train = dir.join("train");
    let unreadable = |source| DataError::Read { path: train.clone(), source };
    let entries = std::fs::read_dir(&train).map_err(unreadable)?;
    let mut classes: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    classes.sort();
    let mut files = vec![];
    for (label, class) in classes.iter().enumerate() {
        files.extend(
            picture_files(std::slice::from_ref(class))?
                .into_iter()
                .map(|file| (file, label as u32)),
        );
    }
    let source: Arc<dyn Source> = Arc::new(Folder { files });
    Ok(DataSet {
        name: format!("folder:{}", dir.display()),
        train: source.clone(),
        val: source,
        test: None,
        shape: [224, 224, 3],
        class_names: classes.iter().map(|class| class.display().to_string()).collect(),
        normalization: Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        },
    })
}

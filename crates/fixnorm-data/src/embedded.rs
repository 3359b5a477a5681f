//! fashion-mnist-mini, in the program itself. Where it comes from: `assets/fashion-mnist-mini`.
//! Not here: the full set (`fashion.rs`).

use std::path::Path;
use std::sync::Arc;

use crate::{DataError, DataSet, InMemory, Source, Summary, fashion, idx};

macro_rules! part {
    ($name:literal) => {
        part(
            concat!("embedded ", $name),
            include_bytes!(concat!(
                "../assets/fashion-mnist-mini/",
                $name,
                "-images-idx3-ubyte.gz"
            )),
            include_bytes!(concat!(
                "../assets/fashion-mnist-mini/",
                $name,
                "-labels-idx1-ubyte.gz"
            )),
        )
    };
}

fn part(name: &str, images: &[u8], labels: &[u8]) -> Result<InMemory, DataError> {
    let file = Path::new(name);
    let (images, labels) = (idx::parse(images, file)?, idx::parse(labels, file)?);
    idx::labelled(images, labels, [file, file], Some(fashion::class_names().len()))
}

pub(crate) fn fashion_mnist_mini() -> Result<DataSet, DataError> {
    let (train, val, test) = (part!("train")?, part!("val")?, part!("test")?);
    let counts = [&train, &val, &test].map(|part| Some((part.len(), "embedded")));
    Ok(DataSet {
        summary: Summary::new("fashion-mnist-mini", counts, &fashion::class_names(), "embedded"),
        name: "fashion-mnist-mini".to_owned(),
        train: Arc::new(train),
        val: Arc::new(val),
        test: Some(Arc::new(test)),
        shape: Some([28, 28, 1]),
        class_names: fashion::class_names(),
        normalization: fashion::normalization(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn parts_are_balanced_and_disjoint() {
        let data = fashion_mnist_mini().unwrap();
        let test = data.test.unwrap();
        for (source, count) in [(&data.train, 6000), (&data.val, 1000), (&test, 1000)] {
            assert_eq!(source.len(), count);
            for class in 0..10 {
                let own = (0..count).filter(|&i| source.label(i) == class).count();
                assert_eq!(own, count / 10);
            }
        }
        let all = |source: &Arc<dyn Source>| -> Vec<Vec<u8>> {
            (0..source.len()).map(|i| source.image(i).unwrap().pixels).collect()
        };
        let train: HashSet<_> = all(&data.train).into_iter().collect();
        // Fashion-MNIST has a few images twice, hence not exactly none.
        let shared = all(&data.val).iter().filter(|pixels| train.contains(*pixels)).count();
        assert!(shared <= 2, "{shared} validation images are in the training set");
    }
}

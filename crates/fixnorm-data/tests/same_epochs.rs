//! One tree of images as directories, as WebDataset shards and as Parquet: the same epochs, to the bit, with
//! any number of workers, from any batch on, and with images in it that cannot be read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixnorm_data::{
    Batch, Columns, Crop, DataSet, DataSpec, Interpolation, LoadOptions, Loader, LoaderConfig,
    OnBad, Resize, Transform,
};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const CLASSES: [&str; 3] = ["ant", "bee", "cat"];

/// Name, label and bytes of every image of a part; every twentieth is torn.
fn images(part: &str, per_class: usize) -> Vec<(String, usize, Vec<u8>)> {
    let mut all = vec![];
    for (label, class) in CLASSES.iter().enumerate() {
        for number in 0..per_class {
            let shade = |x: u32, y: u32, c: u32| {
                ((x * 7 + y * 11 + c * 40) as usize + number * 31 + label * 70 + part.len()) as u8
            };
            let (w, h) = (20 + (number * 7 % 9) as u32, 16 + (number * 5 % 11) as u32);
            let image = image::RgbImage::from_fn(w, h, |x, y| {
                image::Rgb([shade(x, y, 0), shade(x, y, 1), shade(x, y, 2)])
            });
            let mut bytes = vec![];
            image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
            if (label * per_class + number) % 20 == 7 {
                bytes.truncate(bytes.len() / 2);
            }
            all.push((format!("{class}_{number:03}.jpg"), label, bytes));
        }
    }
    all
}

/// Not the order of names.
fn scattered<T: Clone>(items: &[T]) -> Vec<T> {
    (0..items.len()).map(|i| items[i * 37 % items.len()].clone()).collect()
}

fn write_folder(root: &Path, part: &str, per_class: usize) {
    for (name, label, bytes) in images(part, per_class) {
        let dir = root.join(part).join(CLASSES[label]);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn write_tar(root: &Path, part: &str, per_class: usize) {
    let all = scattered(&images(part, per_class));
    for (number, chunk) in all.chunks(all.len().div_ceil(3)).enumerate() {
        let file = File::create(root.join(format!("set-{part}-{number:03}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        let mut append = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        for (name, label, bytes) in chunk {
            append(name, bytes);
            append(&name.replace(".jpg", ".cls"), label.to_string().as_bytes());
        }
        builder.finish().unwrap();
    }
    fs::write(root.join("classes.txt"), CLASSES.join("\n")).unwrap();
}

fn write_parquet(root: &Path, part: &str, per_class: usize) {
    let schema =
        "message m { required group image { required binary bytes; required binary path (UTF8); }
                  required int64 label; }";
    let features = serde_json::json!({"info": {"features": {
        "label": {"names": CLASSES, "_type": "ClassLabel"}}}});
    let metadata = vec![KeyValue::new("huggingface".to_owned(), features.to_string())];
    let all = scattered(&images(part, per_class));
    for (number, chunk) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(metadata.clone()))
            .set_data_page_size_limit(3000)
            .set_write_batch_size(2);
        let mut writer = SerializedFileWriter::new(
            File::create(root.join(format!("{part}-{number:05}-of-00002.parquet"))).unwrap(),
            Arc::new(parse_message_type(schema).unwrap()),
            Arc::new(properties.build()),
        )
        .unwrap();
        for rows in chunk.chunks(10) {
            let mut group = writer.next_row_group().unwrap();
            let bytes: Vec<_> = rows.iter().map(|row| ByteArray::from(row.2.clone())).collect();
            let paths: Vec<_> = rows.iter().map(|row| ByteArray::from(row.0.as_str())).collect();
            for values in [bytes, paths] {
                let mut column = group.next_column().unwrap().unwrap();
                column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
                column.close().unwrap();
            }
            let labels: Vec<_> = rows.iter().map(|row| row.1 as i64).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }
}

fn forms(root: &Path) -> [(&'static str, DataSpec); 3] {
    let at = |name: &str| -> PathBuf {
        let dir = root.join(name);
        fs::create_dir(&dir).unwrap();
        for (part, per_class) in [("train", 20), ("val", 7)] {
            match name {
                "folder" => write_folder(&dir, part, per_class),
                "tar" => write_tar(&dir, part, per_class),
                _ => write_parquet(&dir, part, per_class),
            }
        }
        dir
    };
    [
        ("folder", DataSpec::Folder { dir: at("folder") }),
        (
            "tar",
            DataSpec::Tar {
                pattern: at("tar").join("set-{train,val}-*.tar"),
                columns: Columns::default(),
            },
        ),
        (
            "parquet",
            DataSpec::Parquet {
                pattern: at("parquet").join("train-*.parquet"),
                columns: Columns::default(),
            },
        ),
    ]
}

fn config(data: &DataSet, workers: usize, train: bool) -> LoaderConfig {
    LoaderConfig {
        batch_size: 8,
        workers,
        prefetch: 2,
        seed: 3,
        shuffle: train,
        drop_last: train,
        transform: if train {
            Transform {
                crop: Crop::RandomResized,
                hflip: 0.5,
                auto_augment: "rand-m9-mstd0.5-inc1".parse().unwrap(),
                random_erasing: 0.2,
                mixup: 0.2,
                ..Transform::default()
            }
        } else {
            Resize { crop_ratio: 0.875, interpolation: Interpolation::Bicubic }.into()
        },
        normalization: data.normalization.clone(),
        on_bad: if train { OnBad::Replace } else { OnBad::LeaveOut },
        max_bad: 0.1,
        cache: None,
    }
}

/// Batches without the names of bad images, which are those of files; and how many there were.
fn batches(loader: &Loader, epoch: usize, first: usize) -> (Vec<Batch>, usize) {
    let all: Vec<Batch> = loader.epoch_from(epoch, first).map(Result::unwrap).collect();
    let bad = all.iter().map(|batch| batch.bad.len()).sum();
    (all.into_iter().map(|batch| Batch { bad: vec![], ..batch }).collect(), bad)
}

#[test]
fn every_form_gives_the_same_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let options = LoadOptions { cache: Some(dir.path().join("cache")), ..LoadOptions::default() };
    let mut reference: Option<[Vec<Batch>; 3]> = None;
    let mut fingerprint: Option<String> = None;
    for (form, spec) in forms(dir.path()) {
        // The second time from the index.
        for round in 0..2 {
            let data = spec.load_with(&options).unwrap();
            assert_eq!(data.class_names, CLASSES, "{form}");
            assert_eq!((data.train.len(), data.val.len()), (60, 21), "{form}");
            let print = fingerprint.get_or_insert_with(|| data.fingerprint());
            assert_eq!(*print, data.fingerprint(), "{form}");
            for workers in [0, 1, 2, 4] {
                let loader = |source, train| {
                    Loader::new(source, [12, 14, 3], config(&data, workers, train)).unwrap()
                };
                let (train, val) =
                    (loader(data.train.clone(), true), loader(data.val.clone(), false));
                let (first, bad) = batches(&train, 0, 0);
                let in_first = bad;
                let (second, bad) = batches(&train, 1, 0);
                assert_eq!(in_first + bad, 3, "{form}");
                let found = [first, second, batches(&val, 0, 0).0];
                let expected = reference.get_or_insert_with(|| found.clone());
                assert!(found == *expected, "{form}, {workers} workers, round {round}");
                // A loader that has seen nothing yet, in the middle of an epoch.
                let fresh = loader(data.train.clone(), true);
                assert!(batches(&fresh, 1, 3).0 == expected[1][3..], "{form}");
            }
        }
    }
    let [first, second, val] = reference.unwrap();
    assert_eq!((first.len(), val.iter().map(|batch| batch.labels.len()).sum::<usize>()), (7, 20));
    assert!(first != second && first.iter().all(|batch| batch.shape == [8, 12, 14, 3]));
}

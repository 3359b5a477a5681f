//! Files as the writers of others make them: with and without groups, paths, nulls, dictionaries, codecs.

use std::fs::{self, File};

use ::parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArrayType, Int32Type, Int64Type};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::ColumnPath;

use super::*;
use crate::DataSet;

const HUGGING_FACE: &str = "message m {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label;
}";

/// A row: bytes, path, label.
type Row = (Option<Vec<u8>>, String, i64);

fn row(index: usize, size: usize, label: i64) -> Row {
    let byte = |i: usize| ((index * 131 + i) as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3];
    (Some((0..size).map(byte).collect()), format!("{:03}.jpg", 999 - index), label)
}

/// Writes rows by the hundred into a file of the Hugging Face form.
fn write(path: &Path, rows: &[Row], properties: WriterPropertiesBuilder) {
    let schema = Arc::new(parse_message_type(HUGGING_FACE).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
    for rows in rows.chunks(100) {
        let mut group = writer.next_row_group().unwrap();
        // Defined to the second level, or to the first where the bytes are null.
        let levels: Vec<i16> = rows.iter().map(|row| 1 + i16::from(row.0.is_some())).collect();
        let bytes: Vec<ByteArray> =
            rows.iter().filter_map(|row| row.0.clone()).map(ByteArray::from).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let paths: Vec<ByteArray> =
            rows.iter().map(|row| ByteArray::from(row.1.as_str())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let defined = vec![2; rows.len()];
        column.typed::<ByteArrayType>().write_batch(&paths, Some(&defined), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|row| row.2).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let defined = vec![1; rows.len()];
        column.typed::<Int64Type>().write_batch(&labels, Some(&defined), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn names(names: &[&str]) -> Vec<KeyValue> {
    let json = serde_json::json!({"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }}});
    vec![KeyValue::new("huggingface".to_owned(), json.to_string())]
}

fn load_dir(dir: &Path) -> Result<DataSet, DataError> {
    let options = LoadOptions { cache: None, ..LoadOptions::default() };
    load_with(dir, &Columns::default(), &options)
}

fn load_with(
    dir: &Path,
    columns: &Columns,
    options: &LoadOptions<'_>,
) -> Result<DataSet, DataError> {
    load(dir, columns, "parquet".to_owned(), Purpose::Training, options)?.data_set()
}

fn contents(source: &Arc<dyn Source>) -> Vec<(Vec<u8>, u32)> {
    let bytes = |index| match source.sample(index).unwrap() {
        Sample::Encoded(encoded) => encoded.bytes,
        Sample::Pixels(_) => panic!("a file"),
    };
    (0..source.len()).map(|index| (bytes(index), source.label(index))).collect()
}

/// By label, then path.
fn expected(rows: &[Row]) -> Vec<(Vec<u8>, u32)> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| (a.2, &a.1).cmp(&(b.2, &b.1)));
    rows.into_iter().map(|(bytes, _, label)| (bytes.unwrap(), label as u32)).collect()
}

#[test]
fn every_row_of_every_writer_is_found() {
    let rows: Vec<Row> = (0..250).map(|i| row(i, 100 + i * 7 % 900, (i % 3) as i64)).collect();
    let val: Vec<Row> = (0..5).map(|i| row(i, 50, 2)).collect();
    // Pages of ten images and of one, dictionaries that overflow and that do not.
    let new = || WriterProperties::builder().set_data_page_size_limit(4000).set_write_batch_size(4);
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for (name, properties) in [
        ("plain", new().set_dictionary_enabled(false)),
        ("small dictionary", new().set_dictionary_page_size_limit(2000)),
        ("dictionary", new()),
        ("snappy", new().set_dictionary_enabled(false).set_compression(Compression::SNAPPY)),
        ("zstd", new().set_compression(zstd)),
        ("gzip", new().set_compression(Compression::GZIP(GzipLevel::default()))),
        ("brotli", new().set_compression(Compression::BROTLI(BrotliLevel::default()))),
        ("lz4", new().set_compression(Compression::LZ4_RAW)),
        ("lz4 with frames", new().set_compression(Compression::LZ4)),
        ("second version", new().set_writer_version(WriterVersion::PARQUET_2_0)),
        (
            "delta",
            new().set_dictionary_enabled(false).set_column_encoding(
                ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]),
                Encoding::DELTA_LENGTH_BYTE_ARRAY,
            ),
        ),
        ("one page", WriterProperties::builder()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let properties = properties.set_key_value_metadata(Some(names(&["cat", "dog", "fox"])));
        write(&dir.path().join("train-0.parquet"), &rows, properties.clone());
        write(&dir.path().join("validation-0.parquet"), &val, properties);
        let data = load_dir(dir.path()).unwrap();
        assert!(contents(&data.train) == expected(&rows), "{name}");
        assert!(contents(&data.val) == expected(&val), "{name}");
        assert_eq!(data.class_names, ["cat", "dog", "fox"]);
    }
}

#[test]
fn images_in_large_pages_are_copied_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("data")).unwrap();
    let mut rows: Vec<Row> = (0..120).map(|i| row(i, 60_000 + i, (i % 3) as i64)).collect();
    rows[5].0 = None;
    // One dictionary page in each row group, of 6 MB and 1.2 MB.
    let properties = WriterProperties::builder().set_dictionary_page_size_limit(1 << 30);
    write(&at("data/train.parquet"), &rows, properties.clone());
    write(&at("data/val.parquet"), &rows[6..20], properties);
    let progress = std::sync::Mutex::new(vec![]);
    let note = |done, of| progress.lock().unwrap().push((done, of));
    let options =
        LoadOptions { cache: Some(at("cache")), progress: &note, ..LoadOptions::default() };
    let load =
        |options: &LoadOptions<'_>| load_with(&at("data"), &Columns::default(), options).unwrap();
    let all = |data: &DataSet| -> Vec<Option<Vec<u8>>> {
        let bytes = |index| match data.train.sample(index) {
            Ok(Sample::Encoded(encoded)) => Some(encoded.bytes).filter(|bytes| !bytes.is_empty()),
            _ => None,
        };
        (0..data.train.len()).map(bytes).collect()
    };
    let copied = all(&load(&options));
    assert_eq!(copied.iter().filter(|bytes| bytes.is_none()).count(), 1);
    assert_eq!(fs::read_dir(at("cache/parquet")).unwrap().count(), 1);
    // Two files for the index, then one copy.
    let mut told = std::mem::take(&mut *progress.lock().unwrap());
    told.sort_unstable();
    assert_eq!(told, [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
    assert!(all(&load(&options)) == copied && progress.lock().unwrap().is_empty());
    // Without a place to copy to, the same images.
    let none = LoadOptions { cache: None, ..LoadOptions::default() };
    assert!(all(&load(&none)) == copied);
    // A copy that is gone is made again.
    fs::remove_dir_all(at("cache/parquet")).unwrap();
    assert!(all(&load(&options)) == copied);
    assert_eq!(fs::read_dir(at("cache/parquet")).unwrap().count(), 1);
}

#[test]
fn test_images_without_labels_are_left_out_and_null_images_are_bad() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows: Vec<Row> = (0..20).map(|i| row(i, 30, i as i64 % 2)).collect();
    rows[7].0 = None;
    write(&dir.path().join("train.parquet"), &rows, WriterProperties::builder());
    rows.iter_mut().for_each(|row| row.2 = -1);
    write(&dir.path().join("test.parquet"), &rows, WriterProperties::builder());
    let data = load_dir(dir.path()).unwrap();
    assert!(data.test.is_none());
    assert_eq!(
        (data.train.len() + data.val.len(), &data.class_names[..]),
        (20, &["0".to_owned(), "1".to_owned()][..])
    );
    let errors: Vec<_> = [&data.train, &data.val]
        .iter()
        .flat_map(|source| (0..source.len()).filter_map(|i| source.sample(i).err()))
        .collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("train.parquet/row 7"), "{}", errors[0]);
    fs::rename(dir.path().join("test.parquet"), dir.path().join("val.parquet")).unwrap();
    let error = load_dir(dir.path()).err().unwrap().to_string();
    assert!(error.contains("val.parquet/row 0: expected a class number, found -1"), "{error}");
}

#[test]
fn plain_columns_will_do_and_missing_ones_are_named() {
    let file = |schema: &str| {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = File::create(dir.path().join("0.parquet")).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let images: Vec<ByteArray> = (0..24u8).map(|i| ByteArray::from(vec![i; 3])).collect();
            let labels: Vec<i32> = (0..24).map(|i| i % 2).collect();
            match column.untyped() {
                ::parquet::column::writer::ColumnWriter::ByteArrayColumnWriter(_) => {
                    column.typed::<ByteArrayType>().write_batch(&images, None, None).unwrap()
                }
                _ => column.typed::<Int32Type>().write_batch(&labels, None, None).unwrap(),
            };
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        dir
    };
    let dir = file("message m { required binary image; required int32 cls; }");
    let data = load_dir(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.val.len()), (22, 2));
    assert_eq!(contents(&data.train)[0].0[0] % 2, 0);
    // The only column of bytes.
    let dir = file("message m { required binary image; required int32 label; }");
    assert_eq!(load_dir(dir.path()).unwrap().train.len(), 22);
    for (schema, part) in [
        ("message m { required binary text (UTF8); required int32 label; }", "a column of images"),
        ("message m { required binary image; }", "a column of class numbers"),
    ] {
        let error = load_dir(file(schema).path()).err().unwrap().to_string();
        assert!(error.contains(part) && error.contains("found the columns"), "{error}");
    }
    for (schema, part, answer) in [
        (
            "message m { required binary image; required int32 a; required int32 b; }",
            "the label column may be a, b; choose with parquet:GLOB?label=a",
            "?label=b",
        ),
        (
            "message m { required binary image; required int32 image_id; }",
            "the label column may be image_id;",
            "?label=image_id",
        ),
        (
            "message m { required binary image; required int32 a; required binary breed (UTF8); }",
            "the label column may be a, breed;",
            "?label=a",
        ),
        (
            "message m { required binary left; required binary right; required int32 label; }",
            "the column of images may be left, right; choose with parquet:GLOB?image=left",
            "?image=right",
        ),
    ] {
        let dir = file(schema);
        let error = load_dir(dir.path()).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        let spec = format!("parquet:{}{answer}", dir.path().display());
        let data = spec.parse::<crate::DataSpec>().unwrap().load().unwrap();
        assert_eq!(data.class_names, ["0", "1"]);
    }
    let dir = file("message m { required binary image; required int32 a; }");
    let spec = format!("parquet:{}?label=c", dir.path().display()).parse::<crate::DataSpec>();
    let error = spec.unwrap().load().err().unwrap().to_string();
    assert!(
        error.contains("a column `c` of integers or text")
            && error.contains("image (BYTE_ARRAY), a (INT32)")
    );
}

/// A file of a column of images, a `label`, and more columns, all the same in every row but the label.
fn labelled(path: &Path, labels: &[&str], more: &str, metadata: Vec<KeyValue>) {
    let schema =
        format!("message m {{ required binary image; required binary label (UTF8); {more} }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes: Vec<ByteArray> = labels.iter().map(|&label| ByteArray::from(label)).collect();
    for _ in 0..2 {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, None, None).unwrap();
        column.close().unwrap();
    }
    while let Some(mut column) = group.next_column().unwrap() {
        let numbers: Vec<i64> = (0..labels.len() as i64).map(|row| row % 7).collect();
        column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_text_label_is_taken_and_a_question_beside_integers() {
    let dir = tempfile::tempdir().unwrap();
    let add = |name: &str, labels: &[&str], more: &str| {
        labelled(&dir.path().join(name), labels, more, vec![]);
    };
    let options = LoadOptions { cache: None, ..LoadOptions::default() };
    let chosen = Columns { label: Some("label".to_owned()), image: None };
    for (more, columns) in [("", Columns::default()), ("required int64 id;", chosen)] {
        add("train-0.parquet", &["dog", "cat", "fox", "cat"].repeat(6), more);
        add("train-1.parquet", &["emu", "cat"], more);
        add("dev-0.parquet", &["fox", "emu"], more);
        let load = || load_with(dir.path(), &columns, &options);
        let data = load().unwrap();
        assert_eq!(data.class_names, ["cat", "dog", "emu", "fox"]);
        assert_eq!(data.summary.labels, "column `label`, text");
        for source in [&data.train, &data.val] {
            for (bytes, label) in contents(source) {
                assert_eq!(bytes, data.class_names[label as usize].as_bytes());
            }
        }
        add("dev-0.parquet", &["fox", "yak"], more);
        let error = load().err().unwrap().to_string();
        assert!(error.contains("dev-0.parquet/row 1") && error.contains("found `yak`"), "{error}");
    }
    let error = load_dir(dir.path()).err().unwrap();
    let part = "the label column may be label, id; choose with parquet:GLOB?label=label";
    assert!(error.is_usage() && error.to_string().contains(part), "{error}");
}

#[test]
fn several_label_columns_are_a_question() {
    let class_label = serde_json::json!({"names": ["x", "y"], "_type": "ClassLabel"});
    let json =
        serde_json::json!({"info": {"features": {"fine": class_label, "coarse": class_label}}});
    let metadata = vec![KeyValue::new("huggingface".to_owned(), json.to_string())];
    let dir = tempfile::tempdir().unwrap();
    let more = "required int64 coarse; required int64 fine;";
    labelled(&dir.path().join("train.parquet"), &["a"; 30], more, metadata);
    let error = load_dir(dir.path()).err().unwrap().to_string();
    assert!(error.contains("the label column may be coarse, fine"), "{error}");
}

#[test]
fn class_lists_that_differ_are_matched_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let lists = [
        ("train-0", ["cat", "dog", "fox"]),
        ("train-1", ["fox", "cat", "dog"]),
        ("val", ["dog", "fox", "cat"]),
    ];
    for (file, list) in lists {
        let rows: Vec<Row> = (0..24)
            .map(|i| {
                let label = (i % 3) as i64;
                (Some(list[i % 3].as_bytes().to_vec()), format!("{file}{i:02}"), label)
            })
            .collect();
        let properties = WriterProperties::builder().set_key_value_metadata(Some(names(&list)));
        write(&dir.path().join(format!("{file}.parquet")), &rows, properties);
    }
    let data = load_dir(dir.path()).unwrap();
    assert_eq!(data.class_names, ["cat", "dog", "fox"]);
    assert!(data.summary.warnings[0].contains("matched by name"), "{:?}", data.summary);
    assert_eq!((data.train.len(), data.val.len()), (48, 24));
    for source in [&data.train, &data.val] {
        for (bytes, label) in contents(source) {
            assert_eq!(bytes, data.class_names[label as usize].as_bytes());
        }
    }
    // Numbers without names beside numbers with names: which they are is not known.
    let rows: Vec<Row> = (0..24).map(|i| row(i, 10, (i % 3) as i64)).collect();
    write(&dir.path().join("val.parquet"), &rows, WriterProperties::builder());
    let error = load_dir(dir.path()).err().unwrap().to_string();
    assert!(error.contains("expected labels that are numbers with names"), "{error}");
}

#[test]
fn files_that_are_none_or_torn_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.parquet");
    write(
        &path,
        &(0..20).map(|i| row(i, 300, i as i64 % 2)).collect::<Vec<_>>(),
        WriterProperties::builder(),
    );
    let whole = fs::read(&path).unwrap();
    let noise: Vec<u8> =
        whole.iter().enumerate().map(|(i, &b)| if i < 5000 { b ^ 0x5a } else { b }).collect();
    for bytes in [&whole[..whole.len() / 2], b"", b"PAR1PAR1PAR1", b"no Parquet at all", &noise] {
        fs::write(&path, bytes).unwrap();
        // What the footer still promises may turn out wrong only when an image is read.
        let failed = match load_dir(dir.path()) {
            Err(error) => error.to_string(),
            Ok(data) => data.train.sample(0).unwrap_err().to_string(),
        };
        assert!(failed.contains("0.parquet"), "{failed}");
    }
}

#[test]
fn lengths_that_lie_are_errors_where_the_reader_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.parquet");
    let rows: Vec<Row> = (0..20).map(|i| row(i, 300, i as i64 % 2)).collect();
    write(&path, &rows, WriterProperties::builder().set_dictionary_enabled(false));
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.windows(4).position(|four| four == 300u32.to_le_bytes()).unwrap();
    bytes[length + 2] = 0x54;
    fs::write(&path, bytes).unwrap();
    let data = load_dir(dir.path()).unwrap();
    for index in 0..data.train.len() {
        let failed = data.train.sample(index).unwrap_err().to_string();
        assert!(failed.contains("0.parquet"), "{failed}");
    }
}

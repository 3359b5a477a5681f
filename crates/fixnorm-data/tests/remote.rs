//! Shards behind HTTP and in an S3-compatible store: the same epochs as from disk, to the bit, whatever the server
//! does meanwhile; clear errors; a cache that keeps within its bound.
#![cfg(feature = "object-store")]

mod server;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use fixnorm_data::{
    Batch, Crop, DataError, DataSet, DataSpec, LoadOptions, Loader, LoaderConfig, OnBad, Source,
    Transform,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use server::Server;

const SHARDS: usize = 3;

/// Name, label and bytes of the images of a shard: JPEG files of about 40 kB, most of it behind their end.
fn images(part: &str, shard: usize) -> Vec<(String, i64, Vec<u8>)> {
    let image = |number: usize| {
        let shade = |x: u32, y: u32| (x * 7 + y * 11) as usize + number * 31 + shard * 70;
        let (w, h) = (20 + (number * 7 % 9) as u32, 16 + (number * 5 % 11) as u32);
        let image = image::RgbImage::from_fn(w, h, |x, y| image::Rgb([shade(x, y) as u8; 3]));
        let mut bytes = vec![];
        image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
        let noise = |i: usize| ((i * 31 + number * 97 + shard) as u32).wrapping_mul(2_654_435_761);
        bytes.extend((0..35_000 + number * 311).map(|i| noise(i).to_le_bytes()[3]));
        (format!("{part}-{shard}-{number:03}.jpg"), (number % 3) as i64, bytes)
    };
    (0..60).map(image).collect()
}

/// A plain tar file.
fn tar(part: &str, shard: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, label, bytes) in images(part, shard) {
        for (name, bytes) in
            [(name.clone(), bytes), (name.replace(".jpg", ".cls"), label.to_string().into())]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &bytes[..]).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn parquet(path: &Path, shard: usize, properties: WriterPropertiesBuilder) {
    let schema = "message m { required binary image; required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
    let all = images("train", shard);
    let mut group = writer.next_row_group().unwrap();
    let bytes: Vec<_> = all.iter().map(|row| ByteArray::from(row.2.clone())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&bytes, None, None).unwrap();
    column.close().unwrap();
    let labels: Vec<_> = all.iter().map(|row| row.1).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// A directory with tar shards for training and validation, and their bytes in all.
fn tar_set() -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut sum = 0;
    for shard in 0..SHARDS {
        let bytes = tar("train", shard);
        sum += bytes.len() as u64;
        fs::write(dir.path().join(format!("x-train-{shard:02}.tar")), bytes).unwrap();
    }
    let bytes = tar("val", 0);
    sum += bytes.len() as u64;
    fs::write(dir.path().join("x-val-00.tar"), bytes).unwrap();
    fs::write(dir.path().join("classes.txt"), "ant\nbee\ncat").unwrap();
    (dir, sum)
}

const FILES: &str = "{x-train-{00..02},x-val-00}.tar";

fn load(spec: &str, options: &LoadOptions<'_>) -> Result<DataSet, DataError> {
    spec.parse::<DataSpec>()?.load_with(options)
}

fn in_cache(cache: &Path) -> LoadOptions<'_> {
    LoadOptions { cache: Some(cache.to_owned()), ..LoadOptions::default() }
}

/// The batches of an epoch.
fn epoch(
    source: &Arc<dyn Source>,
    data: &DataSet,
    workers: usize,
) -> Result<Vec<Batch>, DataError> {
    let transform = Transform { crop: Crop::RandomResized, hflip: 0.5, ..Transform::default() };
    let config = LoaderConfig {
        batch_size: 16,
        workers,
        prefetch: 2,
        seed: 5,
        shuffle: true,
        drop_last: false,
        transform,
        normalization: data.normalization.clone(),
        on_bad: OnBad::Replace,
        max_bad: 0.0,
        cache: None,
    };
    Loader::new(source.clone(), [12, 12, 3], config)?.epoch(3).collect()
}

/// Both parts' batches.
fn both(data: &DataSet, workers: usize) -> Result<Vec<Batch>, DataError> {
    let mut all = epoch(&data.train, data, workers)?;
    all.extend(epoch(&data.val, data, workers)?);
    Ok(all)
}

/// Bytes of all files below a directory.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let known = entry.metadata().unwrap();
        if known.is_dir() { bytes_in(&entry.path()) } else { known.len() }
    };
    entries.map(of).sum()
}

#[test]
fn an_epoch_from_a_server_is_that_from_disk() {
    let (dir, sum) = tar_set();
    let server = Server::with_files_of(dir.path());
    let settings = server.settings("key");
    let local = load(&format!("tar:{}/{FILES}", dir.path().display()), &LoadOptions::default());
    let local = local.unwrap();
    let expected = both(&local, 0).unwrap();
    assert_eq!(expected.len(), 12 + 4);
    for url in [format!("tar:{}/{FILES}", server.http()), format!("tar:s3://bucket/{FILES}")] {
        // All of it kept, all but one shard, and nothing.
        for kept in [sum, sum - 1, 0] {
            let cache = tempfile::tempdir().unwrap();
            let options = LoadOptions {
                kept: Some(kept),
                settings: Some(&settings),
                ..in_cache(cache.path())
            };
            let data = load(&url, &options).unwrap();
            assert_eq!(data.class_names, ["ant", "bee", "cat"]);
            assert_eq!(data.fingerprint(), local.fingerprint());
            for workers in [0, 2] {
                assert!(both(&data, workers).unwrap() == expected, "{url} {kept} {workers}");
            }
            let used = bytes_in(&cache.path().join("remote"));
            assert!(used <= kept, "{used} bytes of {kept}");
            assert_eq!(used == sum, kept == sum);
            // Again: what was kept is not fetched again, and the index is there.
            let (before, requests) = (server.shared.bytes.load(Relaxed), server.requests());
            let data = load(&url, &options).unwrap();
            assert!(both(&data, 2).unwrap() == expected);
            if kept == sum {
                let fetched = server.shared.bytes.load(Relaxed) - before;
                assert_eq!((fetched, server.requests() - requests), (11, SHARDS + 1 + 1));
            }
        }
    }
}

#[test]
fn of_many_that_start_at_once_one_fetches() {
    let (dir, sum) = tar_set();
    let server = Server::with_files_of(dir.path());
    let cache = tempfile::tempdir().unwrap();
    let spec = format!("tar:{}/{FILES}", server.http());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load(&spec, &in_cache(cache.path())).unwrap());
        }
    });
    let lists = 4 * fs::read(dir.path().join("classes.txt")).unwrap().len();
    assert_eq!(server.shared.bytes.load(Relaxed), sum as usize + lists);
}

#[test]
fn parquet_files_and_compressed_shards_are_read_from_a_server_too() {
    let dir = tempfile::tempdir().unwrap();
    let pages = || WriterProperties::builder().set_data_page_size_limit(200_000);
    parquet(&dir.path().join("a-train-0.parquet"), 0, pages().set_dictionary_enabled(false));
    // A dictionary of all images, which is copied.
    let large = WriterProperties::builder().set_dictionary_page_size_limit(1 << 30);
    parquet(&dir.path().join("a-val-0.parquet"), 1, large);
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar("train", 0)).unwrap();
    fs::write(dir.path().join("b-train-0.tar.gz"), encoder.finish().unwrap()).unwrap();
    let packed = zstd::encode_all(&tar("val", 1)[..], 1).unwrap();
    fs::write(dir.path().join("b-val-0.tar.zst"), packed).unwrap();
    let server = Server::with_files_of(dir.path());
    for files in ["parquet:/{a-train-0,a-val-0}.parquet", "tar:/{b-train-0.tar.gz,b-val-0.tar.zst}"]
    {
        let [local, remote] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let of = |place: String| files.replace('/', &format!("{place}/"));
        let data = load(&of(dir.path().display().to_string()), &in_cache(local.path())).unwrap();
        let expected = both(&data, 0).unwrap();
        for kept in [None, Some(0)] {
            let options = LoadOptions { kept, ..in_cache(remote.path()) };
            let data = load(&of(server.http()), &options).unwrap();
            assert!(both(&data, 2).unwrap() == expected, "{files} {kept:?}");
        }
    }
}

#[test]
fn a_server_that_fails_and_cuts_connections_loses_nothing() {
    let (dir, _) = tar_set();
    let server = Server::with_files_of(dir.path());
    let local = load(&format!("tar:{}/{FILES}", dir.path().display()), &LoadOptions::default());
    let expected = both(&local.unwrap(), 0).unwrap();
    server.shared.failing.store(15, Relaxed);
    server.shared.cut.store(15, Relaxed);
    let settings = server.settings("key");
    for kept in [None, Some(0)] {
        let cache = tempfile::tempdir().unwrap();
        let options = LoadOptions { kept, settings: Some(&settings), ..in_cache(cache.path()) };
        let data = load(&format!("tar:s3://bucket/{FILES}"), &options).unwrap();
        assert!(both(&data, 2).unwrap() == expected, "{kept:?}");
    }
}

#[test]
fn what_is_missing_or_refused_is_named_by_its_url() {
    let (dir, _) = tar_set();
    let server = Server::with_files_of(dir.path());
    let settings = server.settings("wrong");
    let cache = tempfile::tempdir().unwrap();
    let options = LoadOptions { settings: Some(&settings), ..in_cache(cache.path()) };
    let said = |url: &str| load(url, &options).err().unwrap().to_string();
    let error = said("tar:s3://bucket/x-train-{00..04}.tar");
    assert!(error.starts_with("s3://bucket/x-train-03.tar: there is no such file"), "{error}");
    let error = said(&format!("tar:{}/x-train-03.tar", server.http()));
    assert!(error.contains("/bucket/x-train-03.tar: there is no such file"), "{error}");
    let error = said("tar:s3://bucket/x-*.tar");
    assert!(error.contains("not listed; name the files by braces"), "{error}");
    let error = said("tar:s3://bucket/directory");
    assert!(error.contains("s3://bucket/directory: it names no .tar file"), "{error}");
    let error = said("tar:https://user:password@host/x.tar");
    assert!(error.contains("a user in a URL"), "{error}");
    server.shared.only_key("right");
    let error = said(&format!("tar:s3://bucket/{FILES}"));
    assert!(error.starts_with("s3://bucket/x-train-00.tar: access denied"), "{error}");
    assert!(error.contains("AWS_ACCESS_KEY_ID") && !error.contains("wrong"), "{error}");
    let without = [("AWS_ENDPOINT_URL".to_owned(), server.http())];
    let none = LoadOptions { settings: Some(&without), ..options.clone() };
    let error = load(&format!("tar:s3://bucket/{FILES}"), &none).err().unwrap().to_string();
    assert!(error.contains("there are no credentials for it"), "{error}");
    let right = server.settings("right");
    let options = LoadOptions { settings: Some(&right), ..options };
    load(&format!("tar:s3://bucket/{FILES}"), &options).unwrap();
    let server = Server::with_files_of(dir.path());
    server.shared.without_ranges.store(1, Relaxed);
    let error = load(&format!("tar:{}/{FILES}", server.http()), &options).err().unwrap();
    assert!(error.to_string().contains("does not send parts of files"), "{error}");
}

#[test]
fn a_file_that_is_replaced_under_way_ends_the_epoch() {
    let (dir, _) = tar_set();
    for (shard, path) in [(7, "/bucket/x-train-01.tar"), (0, "/bucket/x-train-00.tar")] {
        let server = Server::with_files_of(dir.path());
        let options = LoadOptions { cache: None, ..LoadOptions::default() };
        let data = load(&format!("tar:{}/{FILES}", server.http()), &options).unwrap();
        let bytes = if shard > 0 { tar("train", shard) } else { vec![0; 1000] };
        server.shared.put(path, bytes);
        for workers in [0, 2] {
            let error = epoch(&data.train, &data, workers).unwrap_err();
            let remote = matches!(&error, DataError::Remote { url, .. } if url.ends_with(path));
            assert!(remote && error.to_string().contains("replaced by another"), "{error}");
        }
        server.shared.remove(path);
        let error = epoch(&data.train, &data, 0).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("there is no such file"), "{error}");
    }
}

#[test]
fn another_version_is_indexed_and_fetched_anew() {
    let (dir, _) = tar_set();
    let server = Server::with_files_of(dir.path());
    let cache = tempfile::tempdir().unwrap();
    let spec = format!("tar:{}/{FILES}", server.http());
    let before = load(&spec, &in_cache(cache.path())).unwrap();
    fs::write(dir.path().join("x-train-01.tar"), tar("train", 8)).unwrap();
    server.shared.put("/bucket/x-train-01.tar", tar("train", 8));
    let after = load(&spec, &in_cache(cache.path())).unwrap();
    let local = format!("tar:{}/{FILES}", dir.path().display());
    let local = load(&local, &LoadOptions::default()).unwrap();
    assert!(both(&after, 2).unwrap() == both(&local, 0).unwrap());
    assert_ne!(after.fingerprint(), before.fingerprint());
}

#[test]
fn the_least_recently_used_make_room_and_what_is_in_use_stays() {
    let (dir, sum) = tar_set();
    let server = Server::with_files_of(dir.path());
    let cache = tempfile::tempdir().unwrap();
    let options = LoadOptions { kept: Some(sum), ..in_cache(cache.path()) };
    let spec = format!("tar:{}/{FILES}", server.http());
    let kept = || bytes_in(&cache.path().join("remote"));
    let old = load(&spec, &options).unwrap();
    let expected = both(&old, 0).unwrap();
    assert_eq!(kept(), sum);
    // The same files under another name.
    for name in ["x-train-00", "x-train-01", "x-train-02", "x-val-00"] {
        let bytes = fs::read(dir.path().join(format!("{name}.tar"))).unwrap();
        server.shared.put(&format!("/other/{name}.tar"), bytes);
    }
    server.shared.put("/other/classes.txt", b"ant\nbee\ncat".to_vec());
    let other = spec.replace("/bucket/", "/other/");
    let data = load(&other, &options).unwrap();
    assert!(both(&data, 0).unwrap() == expected);
    // The first ones may be in use.
    assert_eq!(kept(), sum);
    let entries: Vec<PathBuf> = directories(&cache.path().join("remote"));
    assert_eq!(entries.len(), SHARDS + 1);
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    for file in entries.iter().flat_map(|entry| fs::read_dir(entry).unwrap()) {
        File::options()
            .write(true)
            .open(file.unwrap().path())
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    let data = load(&other, &options).unwrap();
    assert!(both(&data, 0).unwrap() == expected);
    assert_eq!(kept(), sum);
    assert!(directories(&cache.path().join("remote")).iter().all(|own| !entries.contains(own)));
    // What was removed is fetched again.
    assert!(both(&old, 2).unwrap() == expected);
}

#[test]
fn settings_come_from_the_environment() {
    const CHILD: &str = "FIXNORM_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let options = LoadOptions { cache: None, ..LoadOptions::default() };
        let data = load(&format!("tar:s3://bucket/{FILES}"), &options).unwrap();
        assert_eq!(data.train.len(), SHARDS * 60);
        return;
    }
    let (dir, _) = tar_set();
    let server = Server::with_files_of(dir.path());
    server.shared.only_key("right");
    for (key, size, part) in [
        ("right", "1GiB", "1 passed"),
        ("wrong", "1GiB", "access denied"),
        ("right", "much", "FIXNORM_CACHE_SIZE: expected bytes"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["settings_come_from_the_environment", "--exact", "--nocapture"])
            .envs(server.settings(key))
            .env(CHILD, "1")
            .env("FIXNORM_CACHE_SIZE", size)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(part), "{said}");
    }
}

/// Directories that are there.
fn directories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

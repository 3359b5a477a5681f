//! Throughput of epochs from a server on loopback beside epochs from disk.
//!
//! `cargo run --release -p fixnorm-data --features object-store --example remote_epoch -- --images 4000`
//! writes JPEG files of 500 × 375 pixels into tar shards and prints, for each way to read them, the images a second of three
//! epochs, their median, and the process's CPU time an image where /proc has it, which other programs disturb less. The server runs in the
//! same process, on the same cores.

#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/server/mod.rs"]
mod server;

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use fixnorm_data::{Crop, DataSpec, LoadOptions, Loader, LoaderConfig, OnBad, Transform};
use server::Server;

const PER_SHARD: usize = 250;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let images = match &arguments[..] {
        [] => 2000,
        [flag, count] if flag == "--images" => count.parse()?,
        _ => return Err("expected --images N".into()),
    };
    let dir = tempfile::tempdir()?;
    let shards = images / PER_SHARD;
    for shard in 0..shards {
        write(&dir.path().join(format!("train-{shard:04}.tar")), shard)?;
    }
    let server = Server::with_files_of(dir.path());
    let settings = server.settings("key");
    let files = format!("train-{{0000..{:04}}}.tar", shards - 1);
    let disk = format!("tar:{}/{files}", dir.path().display());
    let [http, s3] = [format!("tar:{}/{files}", server.http()), format!("tar:s3://bucket/{files}")];
    let workers = std::thread::available_parallelism()?.get();
    println!("{shards} shards, {images} images of 500x375, {workers} workers, crops of 224");
    println!("{:22} load, s  images/s: epoch 1, 2, 3, median     CPU ms an image", "");
    for (name, spec, kept) in [
        ("disk", &disk, None),
        ("http, kept", &http, None),
        ("s3, kept", &s3, None),
        ("s3, a range an image", &s3, Some(0)),
        ("disk again", &disk, None),
    ] {
        let cache = tempfile::tempdir()?;
        let cache = Some(cache.path().to_owned());
        let options =
            LoadOptions { cache, kept, settings: Some(&settings), ..LoadOptions::default() };
        let start = Instant::now();
        let data = spec.parse::<DataSpec>()?.load_with(&options)?;
        let loading = start.elapsed().as_secs_f64();
        let config = LoaderConfig {
            batch_size: 64,
            workers,
            prefetch: 2,
            seed: 1,
            shuffle: true,
            drop_last: true,
            transform: Transform { crop: Crop::RandomResized, hflip: 0.5, ..Transform::default() },
            normalization: data.normalization,
            on_bad: OnBad::Replace,
            max_bad: 0.0,
            cache: None,
        };
        let loader = Loader::new(data.train, [224, 224, 3], config)?;
        let (mut rates, cpu) = (vec![], cpu_ms());
        for epoch in 0..3 {
            let start = Instant::now();
            for batch in loader.epoch(epoch) {
                batch?;
            }
            rates.push(loader.images() as f64 / start.elapsed().as_secs_f64());
        }
        let cpu = (cpu_ms() - cpu) / (3 * loader.images()) as f64;
        let [first, second, third] = rates[..] else { continue };
        rates.sort_by(f64::total_cmp);
        let median = rates[1];
        println!(
            "{name:22} {loading:7.2} {first:17.0} {second:5.0} {third:5.0} {median:7.0} {cpu:19.2}"
        );
    }
    Ok(())
}

/// CPU time of this process in milliseconds, on Linux.
fn cpu_ms() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths of a second.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// A shard of images of about 100 kB, in ten classes.
fn write(path: &Path, shard: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = tar::Builder::new(File::create(path)?);
    for number in 0..PER_SHARD {
        let seed = (shard * PER_SHARD + number) as u32;
        let pixel = |x: u32, y: u32| {
            let noise = (x * 7919 + y * 104_729 + seed * 31).wrapping_mul(2_654_435_761) >> 26;
            let wave = |k: u32| (((x * k + y * (4 - k) + seed * 13) % 256) / 2 + noise) as u8;
            image::Rgb([wave(1), wave(2), wave(3)])
        };
        let image = image::RgbImage::from_fn(500, 375, pixel);
        let mut bytes = vec![];
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&image)?;
        let label = (seed % 10).to_string().into_bytes();
        for (ending, content) in [("jpg", bytes), ("cls", label)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{seed:07}.{ending}"), &content[..])?;
        }
    }
    builder.finish()?;
    if shard == 0 {
        println!("{} bytes an image", fs::metadata(path)?.len() / PER_SHARD as u64);
    }
    Ok(())
}

//! Writes scalars, and data of plugins, into TensorBoard event files.
//! Not here: which scalars there are, and the run's own record (`metrics.jsonl`).
//!
//! The file is a sequence of TFRecords, all numbers little-endian:
//!
//! ```text
//! u64 length | u32 masked crc32c(length) | data | u32 masked crc32c(data)
//! ```
//!
//! The data is one `tensorflow.Event` message. Only the fields we write are declared, by their
//! numbers in TensorFlow's `event.proto` and `summary.proto`, so no schema compiler is needed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prost::Message;

/// The version in the first event of every file; readers refuse a major version they do not know.
const FILE_VERSION: &str = "brain.Event:2";

/// Added by TFRecord to each rotated checksum, so that data holding checksums stays well mixed.
const CRC_MASK_DELTA: u32 = 0xa282_ead8;

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional: a plain proto3 float would leave a value of 0 out, and the point with it.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

/// `tensorflow.SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

/// `tensorflow.SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

/// Appends scalars to a TensorBoard event file.
///
/// Writes are buffered; a reader sees them after [`flush`](Self::flush).
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
    length: u64,
}

impl EventWriter {
    /// Creates `DIR/events.out.tfevents.SECONDS.fixnorm`, and `dir` where it is missing.
    ///
    /// A number is appended to the name where another file has it, so no file is written over.
    ///
    /// # Errors
    /// When the directory or the file cannot be created or written.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (file, path) = create_new(dir, since_epoch().as_secs())?;
        let mut writer = Self { file: BufWriter::new(file), path, length: 0 };
        writer.append(&Event {
            wall_time: since_epoch().as_secs_f64(),
            file_version: Some(FILE_VERSION.into()),
            ..Event::default()
        })?;
        writer.flush()?;
        Ok(writer)
    }

    /// Reopens the file at `path` to continue after its first `length` bytes; the rest is cut off.
    ///
    /// `length` is what [`length`](Self::length) returned when the checkpoint was taken.
    ///
    /// # Errors
    /// When the file cannot be opened, or with [`io::ErrorKind::UnexpectedEof`] when it is shorter
    /// than `length`; it is left as it was then.
    pub fn resume(path: &Path, length: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let found = file.metadata()?.len();
        if found < length {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} has {found} bytes, fewer than the {length} the checkpoint recorded",
                    path.display()
                ),
            ));
        }
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned(), length })
    }

    /// Appends one point of the curve `tag`, at the present time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f32, step: i64) -> io::Result<()> {
        self.scalars(step, &[(tag, value)])
    }

    /// Appends one point to each of several curves, as a single event; nothing if there are none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, step: i64, values: &[(&str, f32)]) -> io::Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let value = values
            .iter()
            .map(|&(tag, value)| Value {
                tag: tag.into(),
                simple_value: Some(value),
                metadata: None,
            })
            .collect();
        self.summary(step, value)
    }

    /// Appends what a plugin of TensorBoard reads, as one event: tags, each with its content.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn plugin(&mut self, name: &str, values: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let value = |(tag, content): &(&str, Vec<u8>)| {
            let data = PluginData { plugin_name: name.into(), content: content.clone() };
            let metadata = Some(Metadata { plugin_data: Some(data) });
            Value { tag: (*tag).into(), simple_value: None, metadata }
        };
        self.summary(0, values.iter().map(value).collect())
    }

    fn summary(&mut self, step: i64, value: Vec<Value>) -> io::Result<()> {
        self.append(&Event {
            wall_time: since_epoch().as_secs_f64(),
            step,
            summary: Some(Summary { value }),
            ..Event::default()
        })
    }

    /// Hands everything written so far to the operating system.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// The file written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file that are safely stored: a checkpoint records it for
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn length(&mut self) -> io::Result<u64> {
        self.flush()?;
        // The checkpoint must not outlive the bytes that it counts on.
        self.file.get_ref().sync_data()?;
        Ok(self.length)
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let record = frame(&event.encode_to_vec());
        self.file.write_all(&record)?;
        self.length += record.len() as u64;
        Ok(())
    }
}

/// A file in `dir` that did not exist before.
fn create_new(dir: &Path, seconds: u64) -> io::Result<(File, PathBuf)> {
    let name = format!("events.out.tfevents.{seconds}.fixnorm");
    let mut path = dir.join(&name);
    let mut attempt = 0;
    loop {
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                attempt += 1;
                path = dir.join(format!("{name}.{attempt}"));
            }
            Err(error) => return Err(error),
        }
    }
}

fn since_epoch() -> Duration {
    // A clock set before 1970 is no reason to stop a training run.
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// `data` as one TFRecord.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(CRC_MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One event as the reader below finds it.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        wall_time: f64,
        step: i64,
        file_version: Option<String>,
        values: Vec<(String, f32)>,
    }

    /// CRC-32C bit by bit, so that the reader shares nothing with the writer.
    fn crc_by_bits(data: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    fn assert_crc(data: &[u8], stored: &[u8]) {
        let crc = crc_by_bits(data);
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(u32::from_le_bytes(stored.try_into().unwrap()), masked);
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("varint too long");
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(count);
        *bytes = rest;
        head
    }

    /// Field number and payload: 8 bytes for a double or a varint, 4 for a float, else the content.
    fn field(bytes: &mut &[u8]) -> (u64, Vec<u8>) {
        let key = varint(bytes);
        let payload = match key & 7 {
            0 => varint(bytes).to_le_bytes().to_vec(),
            1 => take(bytes, 8).to_vec(),
            2 => {
                let count = varint(bytes) as usize;
                take(bytes, count).to_vec()
            }
            5 => take(bytes, 4).to_vec(),
            other => panic!("wire type {other}"),
        };
        (key >> 3, payload)
    }

    fn value(mut bytes: &[u8]) -> (String, f32) {
        let (mut tag, mut number) = (None, None);
        while !bytes.is_empty() {
            match field(&mut bytes) {
                (1, text) => tag = Some(String::from_utf8(text).unwrap()),
                (2, raw) => number = Some(f32::from_le_bytes(raw.try_into().unwrap())),
                (other, _) => panic!("field {other} of a value"),
            }
        }
        (tag.unwrap(), number.unwrap())
    }

    fn event(mut bytes: &[u8]) -> Read {
        let mut read = Read::default();
        while !bytes.is_empty() {
            match field(&mut bytes) {
                (1, raw) => read.wall_time = f64::from_le_bytes(raw.try_into().unwrap()),
                (2, raw) => read.step = i64::from_le_bytes(raw.try_into().unwrap()),
                (3, text) => read.file_version = Some(String::from_utf8(text).unwrap()),
                (5, summary) => {
                    let mut rest = summary.as_slice();
                    while !rest.is_empty() {
                        let (number, content) = field(&mut rest);
                        assert_eq!(number, 1);
                        read.values.push(value(&content));
                    }
                }
                (other, _) => panic!("field {other} of an event"),
            }
        }
        read
    }

    fn read_all(path: &Path) -> Vec<Read> {
        let file = fs::read(path).unwrap();
        let mut bytes = file.as_slice();
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            assert_crc(length, take(&mut bytes, 4));
            let count = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let data = take(&mut bytes, count);
            assert_crc(data, take(&mut bytes, 4));
            events.push(event(data));
        }
        events
    }

    fn points(path: &Path) -> Vec<(i64, Vec<(String, f32)>)> {
        read_all(path).into_iter().skip(1).map(|event| (event.step, event.values)).collect()
    }

    #[test]
    fn checksums_match_published_ones() {
        // The check value of CRC-32C, and the first 12 bytes of any file TensorFlow writes.
        assert_eq!(crc_by_bits(b"123456789"), 0xe306_9283);
        assert_eq!(frame(&[0; 24])[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn a_reader_finds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("new/run")).unwrap();
        writer.scalar("train/loss", 2.5, 0).unwrap();
        writer.scalar("räder/η", 0.0, 300).unwrap();
        writer.scalars(i64::MAX, &[("a", f32::MIN_POSITIVE), ("b", f32::INFINITY)]).unwrap();
        writer.scalars(7, &[]).unwrap();
        writer.scalar("after", f32::NAN, -1).unwrap();
        writer.flush().unwrap();

        let events = read_all(writer.path());
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert!(events[0].values.is_empty());
        let now = since_epoch().as_secs_f64();
        for read in &events {
            assert!((now - 60.0..=now).contains(&read.wall_time), "{read:?}");
        }
        let expected = [
            (0, vec![("train/loss".to_owned(), 2.5)]),
            (300, vec![("räder/η".to_owned(), 0.0)]),
            (i64::MAX, vec![("a".to_owned(), f32::MIN_POSITIVE), ("b".to_owned(), f32::INFINITY)]),
        ];
        let points = points(writer.path());
        assert_eq!(points[..3], expected);
        assert_eq!(points.len(), 4);
        assert_eq!((points[3].0, points[3].1[0].0.as_str()), (-1, "after"));
        assert!(points[3].1[0].1.is_nan());
    }

    #[test]
    fn the_name_is_one_tensorboard_looks_for_and_never_taken_twice() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> =
            (0..3).map(|_| EventWriter::create(dir.path()).unwrap().path().to_owned()).collect();
        for (index, path) in paths.iter().enumerate() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("events.out.tfevents."), "{name}");
            assert!(!paths[..index].contains(path), "{name}");
            assert_eq!(read_all(path).len(), 1);
        }
    }

    #[test]
    fn length_counts_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        for step in 0..1000 {
            writer.scalar("loss", 1.0, step).unwrap();
        }
        let length = writer.length().unwrap();
        assert_eq!(length, fs::metadata(writer.path()).unwrap().len());
    }

    #[test]
    fn resume_cuts_a_torn_tail_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        let path = writer.path().to_owned();
        writer.scalar("loss", 3.0, 1).unwrap();
        let length = writer.length().unwrap();
        writer.scalar("loss", 2.0, 2).unwrap();
        drop(writer);
        let torn = fs::metadata(&path).unwrap().len() - 5;
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(torn).unwrap();

        let mut writer = EventWriter::resume(&path, length).unwrap();
        assert_eq!(writer.length().unwrap(), length);
        writer.scalar("loss", 1.0, 2).unwrap();
        assert_eq!(writer.length().unwrap(), fs::metadata(&path).unwrap().len());
        let loss = |value| vec![("loss".to_owned(), value)];
        assert_eq!(points(&path), [(1, loss(3.0)), (2, loss(1.0))]);
    }

    #[test]
    fn resume_refuses_a_file_that_lost_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        let path = writer.path().to_owned();
        let length = writer.length().unwrap();
        drop(writer);

        let error = EventWriter::resume(&path, length + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
        let missing = EventWriter::resume(&dir.path().join("none"), 0).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}

//! The values of a metric as a command reports them, in JSON lines.
//! Not here: TensorBoard's event files (`events.rs`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::store::Epoch;
use serde_json::Value;

use super::events;

/// The values so far, by step.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// In the order of steps. Not finite where the command said so.
    points: Vec<(usize, f64)>,
}

impl Values {
    /// Adds a value. One at an earlier step than the last removes those behind it: the command has begun again.
    pub(super) fn push(&mut self, step: Option<usize>, value: f64) {
        let step = step.unwrap_or_else(|| self.points.last().map_or(0, |(last, _)| last + 1));
        self.points.retain(|(earlier, _)| *earlier < step);
        self.points.push((step, value));
    }

    /// The last value.
    pub(super) fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }

    /// As a curve of scores, without values that are not finite.
    pub(super) fn curve(&self, score: impl Fn(f64) -> f64) -> Vec<Epoch> {
        let finite = self.points.iter().filter(|(_, value)| value.is_finite());
        let epoch = |&(epoch, value): &(usize, f64)| Epoch {
            epoch,
            train_loss: None,
            val_loss: None,
            val_top1: score(value),
        };
        finite.map(epoch).collect()
    }
}

/// Reads a metric from where a command writes it.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    metric: String,
    step: String,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    values: Values,
}

impl Reader {
    pub(super) fn new(path: PathBuf, metric: &str, step: &str) -> Self {
        let (metric, step) = (metric.to_owned(), step.to_owned());
        Self { path, metric, step, offset: 0, partial: vec![], values: Values::default() }
    }

    /// The values so far, with what was written since the last call. `is_whole` is true when nothing will follow: then a
    /// last line counts without its end.
    pub(super) fn read(&mut self, is_whole: bool) -> &Values {
        if self.path.is_dir() {
            self.values = events::read(&self.path, &self.metric);
            return &self.values;
        }
        // Not there yet, or read the next time.
        let _ = self.read_lines();
        if is_whole && !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(&line);
        }
        &self.values
    }

    fn read_lines(&mut self) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.offset {
            // Written anew.
            (self.offset, self.values) = (0, Values::default());
            self.partial.clear();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![];
        self.offset += file.read_to_end(&mut bytes)? as u64;
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let last = lines.next_back().unwrap_or_default().to_vec();
        for line in lines {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend(line);
            self.line(&whole);
        }
        self.partial.extend(last);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        let Some(object) = object(&String::from_utf8_lossy(line)) else { return };
        let Some(value) = find(&object, &self.metric) else { return };
        let step = find(&object, &self.step).and_then(Value::as_f64);
        let value = match value {
            Value::Number(number) => number.as_f64(),
            // What JSON has no word for.
            Value::Null => Some(f64::NAN),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if let Some(value) = value {
            self.values.push(step.filter(|step| *step >= 0.0).map(|step| step as usize), value);
        }
    }
}

/// A line that is one JSON object. Python writes NaN and Infinity, which are read as null.
fn object(line: &str) -> Option<Value> {
    let line = line.trim();
    if !line.starts_with('{') {
        return None;
    }
    let parsed = serde_json::from_str(line).or_else(|_| serde_json::from_str(&without_nan(line)));
    parsed.ok().filter(Value::is_object)
}

/// The line with `null` for NaN and Infinity outside of texts.
fn without_nan(line: &str) -> String {
    let mut rewritten = String::with_capacity(line.len());
    let (mut rest, mut in_text) = (line, false);
    while let Some(letter) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| rest.starts_with(word));
        if let (false, Some(word)) = (in_text, word) {
            rewritten += "null";
            rest = &rest[word.len()..];
            continue;
        }
        let escaped = in_text && letter == '\\';
        in_text ^= letter == '"';
        let taken = letter.len_utf8()
            + if escaped { rest[1..].chars().next().map_or(0, char::len_utf8) } else { 0 };
        rewritten += &rest[..taken];
        rest = &rest[taken..];
    }
    rewritten
}

/// The value under a key, or under a path of keys with dots.
fn find<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| {
        let (first, rest) = key.split_once('.')?;
        find(object.get(first)?, rest)
    })
}

/// The last lines of a log, for people to read.
pub(super) fn last_lines(log: &Path, count: usize) -> Option<String> {
    const MOST: u64 = 8192;
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST))).ok()?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(count)..].join("\n");
    (!last.is_empty()).then_some(last)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn points(values: &Values) -> Vec<(usize, f64)> {
        values.points.clone()
    }

    #[test]
    fn lines_are_read_as_they_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::new(path.clone(), "val.top1", "epoch");
        assert_eq!(reader.read(false).last(), None);
        let mut file = File::create(&path).unwrap();
        write!(file, "loading\n{{\"epoch\": 0, \"val\": {{\"top1\": 0.5}}}}\n{{\"epoch\": 1, \"va")
            .unwrap();
        assert_eq!(points(reader.read(false)), [(0, 0.5)]);
        write!(
            file,
            "l.top1\": 0.625}}\n[1]\n{{\"loss\": 1}}\n{{\"epoch\": 2, \"val.top1\": \"0.75\"}}"
        )
        .unwrap();
        assert_eq!(points(reader.read(false)), [(0, 0.5), (1, 0.625)]);
        assert_eq!(points(reader.read(true)), [(0, 0.5), (1, 0.625), (2, 0.75)]);
        // A command that begins again.
        writeln!(file, "\n{{\"epoch\": 1, \"val.top1\": 0.25}}").unwrap();
        assert_eq!(points(reader.read(true)), [(0, 0.5), (1, 0.25)]);
        std::fs::write(&path, "{\"val.top1\": 1}\n{\"val.top1\": 2}\n").unwrap();
        assert_eq!(points(reader.read(true)), [(0, 1.0), (1, 2.0)]);
    }

    #[test]
    fn nan_is_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(
            &path,
            "{\"note\": \"NaN \\\" here\", \"x\": 1.5}\n{\"x\": NaN, \"y\": -Infinity}\n",
        )
        .unwrap();
        let mut reader = Reader::new(path, "x", "epoch");
        assert!(reader.read(true).last().unwrap().is_nan());
        assert_eq!(
            reader.values.curve(|x| -x).iter().map(|e| e.val_top1).collect::<Vec<_>>(),
            [-1.5]
        );
    }

    #[test]
    fn last_lines_are_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_lines(&path, 2), None);
        std::fs::write(&path, "a\nb\n\nc  \n\n").unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), "b\nc");
    }
}

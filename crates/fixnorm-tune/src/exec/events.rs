//! The values of a metric in TensorBoard's event files, as PyTorch's `SummaryWriter` writes them.

use std::path::{Path, PathBuf};

use super::metric::Values;

/// Directories below the one that is named, at most.
const DEPTH: usize = 4;

/// The curve `tag` of all event files in `dir` and below, in the order of their names, which begin with a time.
pub(super) fn read(dir: &Path, tag: &str) -> Values {
    let mut files = vec![];
    find(dir, DEPTH, &mut files);
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let mut values = Values::default();
    // A file that is not readable yet is read the next time.
    for bytes in files.iter().filter_map(|file| std::fs::read(file).ok()) {
        for (step, value) in scalars(&bytes, tag) {
            values.push(usize::try_from(step).ok(), f64::from(value));
        }
    }
    values
}

fn find(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            find(&path, depth - 1, files);
        } else if entry.file_name().to_string_lossy().contains("tfevents") {
            files.push(path);
        }
    }
}

/// The points of the curve `tag` in an event file: TFRecords (length, its checksum, data, its checksum), each of which is
/// one `tensorflow.Event`. What is not whole yet ends it.
fn scalars(bytes: &[u8], tag: &str) -> Vec<(u64, f32)> {
    let (mut rest, mut points) = (bytes, vec![]);
    while let Some((event, behind)) = record(rest) {
        let fields: Vec<Field> = Fields(event).collect();
        let step = fields.iter().find_map(|field| match field {
            Field { number: 2, content: Content::Number(step) } => Some(*step),
            _ => None,
        });
        for summary in fields.iter().filter_map(|field| field.message(5)) {
            for value in Fields(summary).filter_map(|field| field.message(1)) {
                points.extend(scalar(value, tag).map(|value| (step.unwrap_or(0), value)));
            }
        }
        rest = behind;
    }
    points
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (data, rest) = rest.get(4..)?.split_at_checked(length)?;
    Some((data, rest.get(4..)?))
}

/// The value of a `Summary.Value` of this tag.
fn scalar(value: &[u8], tag: &str) -> Option<f32> {
    let fields: Vec<Field> = Fields(value).collect();
    let is_wanted = fields.iter().any(|field| field.message(1) == Some(tag.as_bytes()));
    let number = fields.iter().find_map(|field| match field {
        Field { number: 2, content: Content::Float(value) } => Some(*value),
        _ => None,
    });
    number.filter(|_| is_wanted)
}

/// A field of a message in protobuf's encoding.
struct Field<'a> {
    number: u64,
    content: Content<'a>,
}

enum Content<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn message(&self, number: u64) -> Option<&'a [u8]> {
        match self.content {
            Content::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, up to the first one that is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = varint(&mut self.0)?;
        let content = match key & 7 {
            0 => Content::Number(varint(&mut self.0)?),
            1 => take(&mut self.0, 8).map(|_| Content::Other)?,
            2 => {
                let length = varint(&mut self.0)?;
                Content::Bytes(take(&mut self.0, usize::try_from(length).ok()?)?)
            }
            5 => Content::Float(f32::from_le_bytes(take(&mut self.0, 4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Field { number: key >> 3, content })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as PyTorch's writer makes it; its checksums are not looked at.
    fn event(step: u8, tag: &str, value: f32) -> Vec<u8> {
        let mut inner = vec![0x0a, tag.len() as u8];
        inner.extend(tag.as_bytes());
        inner.push(0x15);
        inner.extend(value.to_le_bytes());
        let mut summary = vec![0x0a, inner.len() as u8];
        summary.extend(inner);
        let mut event = vec![0x09];
        event.extend(1.5e9_f64.to_le_bytes());
        event.extend([0x10, step, 0x2a, summary.len() as u8]);
        event.extend(summary);
        let mut record = (event.len() as u64).to_le_bytes().to_vec();
        record.extend([0; 4]);
        record.extend(event);
        record.extend([0; 4]);
        record
    }

    #[test]
    fn scalars_are_read_from_files_that_grow() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("run/val");
        std::fs::create_dir_all(&inner).unwrap();
        let mut bytes = vec![];
        for step in 0..3 {
            bytes.extend(event(step, "val_top1", 0.25 * f32::from(step)));
            bytes.extend(event(step, "loss", 1.0));
        }
        let scores = |bytes: &[u8]| -> Vec<(usize, f64)> {
            std::fs::write(inner.join("events.out.tfevents.1.host"), bytes).unwrap();
            let curve = read(dir.path(), "val_top1").curve(|value| value);
            curve.iter().map(|epoch| (epoch.epoch, epoch.val_top1)).collect()
        };
        let expected = [(0, 0.0), (1, 0.25), (2, 0.5)];
        assert_eq!(scores(&bytes), expected);
        // Every prefix is a file whose last event is not written yet.
        for length in 0..bytes.len() {
            let found = scores(&bytes[..length]);
            assert_eq!(found, expected[..found.len()]);
        }
    }
}

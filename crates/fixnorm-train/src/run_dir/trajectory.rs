//! `trajectory.bin`: a run's learning rate and norms at every step, lossless.
//! Not here: following it (`fixnorm_analysis::replay`).
//!
//! One line of JSON that names the weights, then for each step its learning rate and the weights' norms before
//! it, as 64-bit floats, little-endian. All rows are equally long, so that a resumed run knows where to cut.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fixnorm_analysis::Trajectory;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::run_dir::layout::RunFiles;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    weights: Vec<String>,
}

/// The record of a run that is being trained.
pub(crate) struct TrajectoryLog {
    file: File,
    path: PathBuf,
    weights: usize,
}

impl TrajectoryLog {
    /// Opens the record of the run in `root`, cut after `steps` steps.
    pub(crate) fn open(root: &Path, weights: &[String], steps: usize) -> Result<Self, TrainError> {
        let path = RunFiles::new(root).trajectory_path();
        let open =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(TrainError::io("open", &path))?;
        let header = Header { version: VERSION, weights: weights.to_vec() };
        let mut line = serde_json::to_vec(&header).map_err(|e| TrainError::corrupt(&path, e))?;
        line.push(b'\n');
        let length = line.len() as u64 + (steps * (weights.len() + 1) * 8) as u64;
        let found = file.metadata().map_err(TrainError::io("read", &path))?.len();
        if steps > 0 && found < length {
            return Err(TrainError::corrupt(
                &path,
                format!(
                    "does not hold the first {steps} steps; log.trajectory must be on from the start of a run"
                ),
            ));
        }
        if steps == 0 {
            file.set_len(0)
                .and_then(|()| file.write_all(&line))
                .map_err(TrainError::io("write", &path))?;
        }
        let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0)).map(drop));
        cut.map_err(TrainError::io("truncate", &path))?;
        Ok(Self { file, path, weights: weights.len() })
    }

    /// Adds a step.
    pub(crate) fn record(&mut self, lr: f64, norms: &[(String, f64)]) -> Result<(), TrainError> {
        debug_assert_eq!(norms.len(), self.weights);
        let values = std::iter::once(lr).chain(norms.iter().map(|(_, norm)| *norm));
        let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
        self.file.write_all(&bytes).map_err(TrainError::io("write", &self.path))
    }

    /// Waits until all of it is on disk.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(TrainError::io("write", &self.path))
    }
}

/// The record of the run in `root`.
///
/// # Errors
/// No record there, or one that is torn.
pub fn read(root: &Path) -> Result<Trajectory, TrainError> {
    let path = RunFiles::new(root).trajectory_path();
    let bytes = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let header: Header =
        serde_json::from_slice(&bytes[..end]).map_err(|e| TrainError::corrupt(&path, e))?;
    if header.version != VERSION {
        let message = format!("version {}, expected {VERSION}", header.version);
        return Err(TrainError::corrupt(&path, message));
    }
    let values = bytes.get(end + 1..).unwrap_or_default().chunks_exact(8);
    if !values.remainder().is_empty() {
        return Err(TrainError::corrupt(&path, "its last value is cut short"));
    }
    let values = values.map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect();
    Trajectory::new(header.weights, values).map_err(|e| TrainError::corrupt(&path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_comes_back_to_the_bit_and_is_cut_on_resume() {
        let dir = tempfile::tempdir().unwrap();
        let weights = ["a".to_owned(), "b".to_owned()];
        let row = |step: usize| {
            let x = 1.0 / (3.0 + step as f64);
            (x, [("a".to_owned(), x.sqrt()), ("b".to_owned(), x.exp())])
        };
        let mut log = TrajectoryLog::open(dir.path(), &weights, 0).unwrap();
        for step in 0..5 {
            let (lr, norms) = row(step);
            log.record(lr, &norms).unwrap();
        }
        log.sync().unwrap();
        // Resumed from a checkpoint after three steps.
        let mut log = TrajectoryLog::open(dir.path(), &weights, 3).unwrap();
        for step in 3..6 {
            let (lr, norms) = row(step);
            log.record(lr, &norms).unwrap();
        }
        let read = read(dir.path()).unwrap();
        assert_eq!((read.steps(), read.weights()), (6, &weights[..]));
        for step in 0..6 {
            let (lr, norms) = row(step);
            assert_eq!(read.lr(step).unwrap(), lr);
            assert_eq!(read.norm(step, "b").unwrap(), norms[1].1);
        }
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let weights = ["a".to_owned()];
        assert!(read(dir.path()).unwrap_err().to_string().starts_with("cannot read"));
        let error = TrajectoryLog::open(dir.path(), &weights, 2).err().unwrap().to_string();
        assert!(error.contains("from the start of a run"), "{error}");
        let mut log = TrajectoryLog::open(dir.path(), &weights, 0).unwrap();
        log.record(0.1, &[("a".to_owned(), 1.0)]).unwrap();
        let path = RunFiles::new(dir.path()).trajectory_path();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [bytes.len() - 3, bytes.len() - 8, 4] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(read(dir.path()), Err(TrainError::Corrupt { .. })), "{cut}");
        }
    }
}

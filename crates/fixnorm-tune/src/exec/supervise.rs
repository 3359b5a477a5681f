//! The process between a worker and a trial's command: it runs the command in a process group of its own, ends the whole group
//! when its worker is gone or the time is over, and reports how the command ended.
//!
//! A process of its own, since a worker that is killed can end nothing: it reads its standard input, which ends with the
//! worker, whatever ended that.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Between looks at the command.
const POLL: Duration = Duration::from_millis(20);

/// From the request to end to the end by force.
const GRACE: Duration = Duration::from_secs(10);

/// A command to run.
#[derive(Clone, Debug)]
pub struct Supervised {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its output goes behind what is in these files: stdout, stderr.
    pub logs: [PathBuf; 2],
    /// Time after which it is ended.
    pub timeout: Option<Duration>,
}

/// How a command ended; on stdout of the supervising process, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal, that somebody else sent.
    Signal(i32),
    /// It was ended since its time was over.
    Timeout,
    /// It was ended since its worker wanted that or is gone.
    Stopped,
    /// It could not be started.
    NotStarted(String),
}

/// Runs a command to its end, and returns what to print on stdout.
pub fn supervise(supervised: &Supervised) -> String {
    let ended = run(supervised).unwrap_or_else(Ended::NotStarted);
    serde_json::to_string(&ended).expect("texts and numbers are JSON")
}

fn run(supervised: &Supervised) -> Result<Ended, String> {
    let Supervised { command, logs, timeout } = supervised;
    let (program, arguments) = command.split_first().ok_or("there is no command")?;
    let log = |path: &Path| -> Result<File, String> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log(&logs[0])?).stderr(log(&logs[1])?);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let is_left = Arc::new(AtomicBool::new(false));
    let seen = is_left.clone();
    thread::spawn(move || {
        let mut stdin = std::io::stdin();
        while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
        seen.store(true, Ordering::Relaxed);
    });
    let since = Instant::now();
    loop {
        let status = child.try_wait().map_err(|error| error.to_string())?;
        if let Some(status) = status {
            // What it has left in the background would disturb the next trial.
            signal(&child, "KILL");
            return Ok(ended(status));
        }
        if is_left.load(Ordering::Relaxed) {
            end(&mut child);
            return Ok(Ended::Stopped);
        }
        if timeout.is_some_and(|timeout| since.elapsed() > timeout) {
            end(&mut child);
            return Ok(Ended::Timeout);
        }
        thread::sleep(POLL);
    }
}

fn ended(status: ExitStatus) -> Ended {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Ended::Signal(signal);
    }
    Ended::Code(status.code().unwrap_or(1))
}

/// Ends the command and all that it has started, by request and then by force.
fn end(child: &mut Child) {
    signal(child, "TERM");
    let since = Instant::now();
    while since.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(POLL);
    }
    signal(child, "KILL");
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal to the command's process group; that has an end already where nothing is left of it.
#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let group = format!("-{}", child.id());
    // The shell's own `kill`: no program that might be missing.
    let mut kill = Command::new("/bin/sh");
    kill.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, &group]);
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(not(unix))]
fn signal(_child: &Child, _name: &str) {}

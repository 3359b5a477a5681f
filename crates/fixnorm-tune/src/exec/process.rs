//! A job that is a command, as its worker sees it: how it is started, its curve, and what its end means.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::space::Axis;
use crate::store::{End, Epoch, Job, Metric};

use super::command::{CommandPlan, Values};
use super::metric::{Reader, last_lines};
use super::supervise::Ended;
use crate::worker::{Exit, Launch, Running, WorkError};

/// Lines of output in the reason of a failure.
const LINES: usize = 8;

/// Jobs that are runs of a command.
pub struct CommandJobs<'a> {
    /// What is run.
    pub plan: &'a CommandPlan,
    /// The knobs.
    pub axes: &'a [Axis],
    /// What the score is.
    pub metric: &'a Metric,
    /// This program, with the arguments that make it [`supervise`](super::supervise); `--`, stdout's log, stderr's log and
    /// the command follow.
    pub supervisor: [PathBuf; 2],
}

impl Launch for CommandJobs<'_> {
    fn prepare(&self, _runs: &Path) -> Result<(), WorkError> {
        Ok(())
    }

    fn start(
        &self,
        job: &Job,
        out: &Path,
        _inherited: bool,
    ) -> Result<Box<dyn Running>, WorkError> {
        // A command may change its directory.
        let out = std::path::absolute(out).map_err(WorkError::io("find", out))?;
        fs::create_dir_all(&out).map_err(WorkError::io("create", &out))?;
        let logs = ["stdout", "stderr"].map(|stream| beside(&out, stream));
        end_line(&logs[0]).map_err(WorkError::io("write", &logs[0]))?;
        let knobs = self.axes.iter().zip(&job.point);
        let values = Values {
            knobs: knobs.map(|(axis, &x)| (axis.name.as_str(), axis.value(x))).collect(),
            seed: job.seed,
            trial: job.trial,
            out: out.clone(),
        };
        let (words, variables) = self.plan.arguments(&values);
        let [program, subcommand] = &self.supervisor;
        let mut command = Command::new(program);
        command.arg(subcommand);
        if let Some(timeout) = self.plan.timeout {
            command.arg(format!("--timeout={timeout}"));
        }
        command.arg("--").args(&logs).args(words).envs(variables);
        // Signals of a terminal are for the worker, which ends the command.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.map_err(WorkError::io("start", program))?;
        let source = self.plan.source(&values).unwrap_or_else(|| logs[0].clone());
        let reader = Reader::new(source, &self.plan.metric, &self.plan.step);
        let (metric, timeout) = (self.metric.clone(), self.plan.timeout);
        Ok(Box::new(CommandRun { child, reader, logs, metric, timeout }))
    }

    fn tidy(&self, _out: &Path) {}
}

/// `OUT.stdout`, `OUT.stderr`.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    PathBuf::from(path)
}

/// Ends the line that an attempt before was killed in.
fn end_line(log: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let written = fs::read(log).unwrap_or_default();
    if written.last().is_some_and(|last| *last != b'\n') {
        OpenOptions::new().append(true).open(log)?.write_all(b"\n")?;
    }
    File::options().create(true).append(true).open(log).map(drop)
}

/// A running command.
struct CommandRun {
    child: Child,
    reader: Reader,
    logs: [PathBuf; 2],
    metric: Metric,
    timeout: Option<f64>,
}

impl Running for CommandRun {
    fn curve(&mut self) -> Vec<Epoch> {
        self.reader.read(false).curve(|value| self.metric.flip(value))
    }

    fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    fn kill(&mut self) {
        self.stop();
        // Not by force: it ends the command first.
        let _ = self.child.wait();
    }

    fn poll(&mut self) -> Result<Option<Exit>, WorkError> {
        let status = self.child.try_wait().map_err(WorkError::io("wait for", &self.logs[0]))?;
        if status.is_none() {
            return Ok(None);
        }
        let mut said = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            // Nothing was said by one that was killed.
            let _ = stdout.read_to_string(&mut said);
        }
        Ok(Some(match serde_json::from_str(&said) {
            Ok(ended) => self.exit(&ended),
            Err(_) => self.failed("its supervising process was killed"),
        }))
    }
}

impl CommandRun {
    fn exit(&mut self, ended: &Ended) -> Exit {
        match ended {
            Ended::Code(0) => match self.reader.read(true).last() {
                Some(value) if value.is_finite() => Exit::End(End::Complete {
                    val_top1: self.metric.flip(value),
                    val_loss: None,
                    test_top1: None,
                }),
                Some(_) => {
                    let reason = format!("the last {} is not finite", self.metric.name);
                    Exit::End(End::Failed { diverged: true, reason })
                }
                None => self.failed(&format!("it ended without a value of {}", self.metric.name)),
            },
            Ended::Code(code) => {
                let memory = if self.is_out_of_memory() { "out of memory, " } else { "" };
                self.failed(&format!("{memory}exit code {code}"))
            }
            Ended::Signal(signal) => self.failed(&format!("killed by {}", signal_name(*signal))),
            Ended::Timeout => {
                let seconds = self.timeout.unwrap_or_default();
                self.failed(&format!("it had not ended after {seconds} s"))
            }
            Ended::Stopped => Exit::Stopped,
            Ended::NotStarted(reason) => Exit::Refused(format!("the command: {reason}")),
        }
    }

    fn failed(&self, reason: &str) -> Exit {
        let printed = self.logs.iter().rev().find_map(|log| last_lines(log, LINES));
        let reason = match printed {
            Some(lines) => format!("{reason}; last lines of output:\n{lines}"),
            None => format!("{reason}; it printed nothing"),
        };
        Exit::End(End::Failed { diverged: false, reason })
    }

    /// What Python, PyTorch, JAX, Java and C++ say.
    fn is_out_of_memory(&self) -> bool {
        const WORDS: [&str; 5] =
            ["out of memory", "MemoryError", "OutOfMemory", "RESOURCE_EXHAUSTED", "bad_alloc"];
        let printed = last_lines(&self.logs[1], LINES).unwrap_or_default();
        WORDS.iter().any(|word| printed.contains(word))
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        // What the kernel ends a process by that it takes memory from.
        9 => "SIGKILL (by hand, or out of memory)",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

impl Drop for CommandRun {
    fn drop(&mut self) {
        self.kill();
    }
}

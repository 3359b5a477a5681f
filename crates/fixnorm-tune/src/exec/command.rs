//! A command with placeholders, and what is read from it; a study saves both as its plan.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::CommandError;
use super::knob::{RESERVED, is_name};

/// What a study of a command runs and reads. `{lr}` and so on are knobs; `{seed}`, `{trial}` and `{out}` are the job's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandPlan {
    /// As the user wrote it.
    pub exec: String,
    /// Whether a shell reads it.
    pub shell: bool,
    /// The key or tag of the score.
    pub metric: String,
    /// Whether smaller values are better.
    pub minimize: bool,
    /// The key of the epoch or step that a value belongs to.
    pub step: String,
    /// Steps of a whole trial; 0 if not known.
    pub steps: usize,
    /// Where values are: a file of JSON lines or a directory of TensorBoard events, with placeholders; by default stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// Seconds after which a trial has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
}

/// What the placeholders of one job stand for.
pub(super) struct Values<'a> {
    pub(super) knobs: Vec<(&'a str, f64)>,
    pub(super) seed: u64,
    pub(super) trial: usize,
    pub(super) out: PathBuf,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<String> {
        match name {
            "seed" => Some(self.seed.to_string()),
            "trial" => Some(self.trial.to_string()),
            "out" => Some(self.out.to_string_lossy().into_owned()),
            _ => {
                let knob = self.knobs.iter().find(|(knob, _)| *knob == name);
                knob.map(|(_, value)| value.to_string())
            }
        }
    }
}

/// A part of a text with placeholders.
enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

impl CommandPlan {
    /// Reads the plan of a study; none if it is a recipe's.
    pub fn from_toml(text: &str) -> Option<Self> {
        toml::from_str(text).ok()
    }

    /// As a study saves it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts and numbers are TOML")
    }

    /// Refuses a command that cannot be read, or whose placeholders and knobs do not belong to each other.
    ///
    /// # Errors
    /// The error names the placeholder or the knob.
    pub fn check(&self, knobs: &[String]) -> Result<(), CommandError> {
        let command = CommandError::Command;
        if self.exec.trim().is_empty() {
            return Err(command("it is empty".to_owned()));
        }
        if !self.shell && shlex::split(&self.exec).is_none() {
            return Err(command("a quotation mark or backslash has no end".to_owned()));
        }
        let texts = [Some(&self.exec), self.read.as_ref()];
        let parts = texts.into_iter().flatten().flat_map(|text| parts(text));
        let used: BTreeSet<&str> = parts
            .filter_map(|part| match part {
                Part::Name(name) => Some(name),
                Part::Text(_) => None,
            })
            .collect();
        let is_known = |name: &str| RESERVED.contains(&name) || knobs.iter().any(|k| k == name);
        if let Some(unknown) = used.iter().find(|name| !is_known(name)) {
            return Err(command(format!(
                "{{{unknown}}} has no range: name one with --knob {unknown}=LOW:HIGH[:log], or write {{{{{unknown}}}}} \
                 if it is no placeholder"
            )));
        }
        if let Some(unused) = knobs.iter().find(|knob| !used.contains(knob.as_str())) {
            return Err(command(format!(
                "the knob {unused} is not in it: write {{{unused}}} where its value goes"
            )));
        }
        Ok(())
    }

    /// Program and arguments, and for a shell the variables that it reads values from. Without a shell a value is in one
    /// argument, whatever is in it; with one it is the value of a variable, which is never read as a command.
    pub(super) fn arguments(&self, values: &Values) -> (Vec<String>, Vec<(String, String)>) {
        if !self.shell {
            let words = shlex::split(&self.exec).unwrap_or_default();
            return (words.iter().map(|word| filled(word, values)).collect(), vec![]);
        }
        let (mut script, mut variables) = (String::new(), vec![]);
        for part in parts(&self.exec) {
            match part {
                Part::Text(text) => script += text,
                Part::Name(name) => {
                    let variable = format!("FIXNORM_TRIAL_{name}");
                    script += &format!("${{{variable}}}");
                    variables.push((variable, values.get(name).unwrap_or_default()));
                }
            }
        }
        (vec!["/bin/sh".to_owned(), "-c".to_owned(), script], variables)
    }

    /// Where values are read, if not from stdout.
    pub(super) fn source(&self, values: &Values) -> Option<PathBuf> {
        self.read.as_ref().map(|path| PathBuf::from(filled(path, values)))
    }
}

fn filled(text: &str, values: &Values) -> String {
    let part = |part: Part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Name(name) => values.get(name).unwrap_or_default(),
    };
    parts(text).into_iter().map(part).collect()
}

/// Splits at placeholders. `{{` and `}}` are braces; braces around anything but a name stay as they are.
fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut from, mut at) = (vec![], 0, 0);
    while let Some(found) = text[at..].find(['{', '}']) {
        let brace = at + found;
        let rest = &text[brace..];
        let name = rest[1..].split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
        at = if rest.starts_with("{{") || rest.starts_with("}}") {
            parts.push(Part::Text(&text[from..=brace]));
            from = brace + 2;
            from
        } else if let (true, Some(name)) = (rest.starts_with('{'), name) {
            parts.push(Part::Text(&text[from..brace]));
            parts.push(Part::Name(name));
            from = brace + name.len() + 2;
            from
        } else {
            brace + 1
        };
    }
    parts.push(Part::Text(&text[from..]));
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::exec) fn plan(exec: &str, shell: bool) -> CommandPlan {
        CommandPlan {
            exec: exec.to_owned(),
            shell,
            metric: "val_top1".to_owned(),
            minimize: false,
            step: "epoch".to_owned(),
            steps: 0,
            read: None,
            timeout: None,
        }
    }

    fn values() -> Values<'static> {
        let out = PathBuf::from("/tmp/a b; rm -rf $HOME/`x`");
        Values { knobs: vec![("lr", 0.1), ("wd", 1.25e-5)], seed: 3, trial: 7, out }
    }

    #[test]
    fn values_are_arguments_and_never_parts_of_a_command() {
        let exec = "python 'my train.py' --lr={lr} --wd {wd} \"{seed}-{trial}\" --out {out} {{x}} {\"a\":1} {}";
        let (words, variables) = plan(exec, false).arguments(&values());
        assert_eq!(
            words,
            [
                "python",
                "my train.py",
                "--lr=0.1",
                "--wd",
                "0.0000125",
                "3-7",
                "--out",
                "/tmp/a b; rm -rf $HOME/`x`",
                "{x}",
                "{a:1}",
                "{}"
            ]
        );
        assert!(variables.is_empty());
        let (words, variables) = plan("echo \"{out}\" {lr} | cat", true).arguments(&values());
        assert_eq!(words[..2], ["/bin/sh", "-c"]);
        assert_eq!(words[2], "echo \"${FIXNORM_TRIAL_out}\" ${FIXNORM_TRIAL_lr} | cat");
        assert_eq!(variables[0].1, "/tmp/a b; rm -rf $HOME/`x`");
        assert_eq!(variables[1], ("FIXNORM_TRIAL_lr".to_owned(), "0.1".to_owned()));
    }

    #[test]
    fn placeholders_and_knobs_belong_to_each_other() {
        let knobs = ["lr".to_owned()];
        assert!(plan("train {lr} {seed}", false).check(&knobs).is_ok());
        for (exec, part) in [
            ("train {lr} {alpha}", "--knob alpha="),
            ("train {seed}", "knob lr"),
            ("train '{lr}", "no end"),
            (" ", "empty"),
        ] {
            let error = plan(exec, false).check(&knobs).unwrap_err().to_string();
            assert!(error.contains(part), "{exec}: {error}");
        }
    }

    #[test]
    fn a_plan_is_read_back_and_a_recipes_is_none() {
        let plan = CommandPlan { timeout: Some(1.5), ..plan("a \"{lr}\"\n", true) };
        assert_eq!(CommandPlan::from_toml(&plan.to_toml()), Some(plan));
        assert_eq!(CommandPlan::from_toml("[recipe]\nmodel = \"resnet8\"\n"), None);
    }
}

//! The model card of exported weights: the model, the numbers measured in its run, how to load it, and the recipe.
//! Not here: the other files of the directory (`hub.rs`).

use std::fmt::Write;

use fixnorm_nn::{Classifier, Library, ModelSpec};

use crate::Plan;
use crate::run_dir::Summary;
use crate::weights::bundle::About;
use crate::weights::hub::loaders_note;

/// The run that weights are of.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) result: Option<Summary>,
}

/// What a card is made from.
pub(super) struct Card<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) about: &'a About,
    pub(super) model: &'a Classifier,
    pub(super) run: Option<&'a Run>,
}

impl Card<'_> {
    /// The card as the hub reads it: Markdown with a header in YAML.
    pub(super) fn text(&self) -> String {
        let sections = [
            self.header(),
            format!("# {}\n", self.spec.name),
            self.origin(),
            table("Model", &self.facts()),
            self.measured(),
            self.usage(),
            self.recipe(),
        ];
        let sections: Vec<String> =
            sections.into_iter().filter(|section| !section.is_empty()).collect();
        sections.join("\n")
    }

    fn header(&self) -> String {
        let is_timms = self.spec.library == Library::Timm;
        let (library, tag) = if is_timms { ("timm", "- timm\n") } else { ("fixnorm", "") };
        format!(
            "---\ntags:\n- image-classification\n{tag}- fixnorm\npipeline_tag: image-classification\nlibrary_name: {library}\n---\n"
        )
    }

    fn origin(&self) -> String {
        let classes = self.about.classes.len();
        match self.run {
            Some(Run { plan, .. }) => format!(
                "An image classifier of {classes} classes, trained on `{}` with fixnorm {} (commit {}) on {}.\n",
                plan.recipe.data, plan.made_by.version, plan.made_by.commit, plan.made_by.device
            ),
            None => format!(
                "An image classifier of {classes} classes. The weights were exported from a file, not from a run of \
                 fixnorm: how they were trained and how accurate they are is not known here.\n"
            ),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let [height, width, channels] = self.about.image;
        let About { crop_ratio, interpolation, mean, std, .. } = self.about;
        let filter = serde_json::to_string(interpolation).unwrap_or_default();
        vec![
            ("Architecture", format!("`{}`", self.spec.name)),
            ("Parameters", self.model.params().to_string()),
            ("Multiply-accumulates of an image", self.model.macs(height, width).to_string()),
            ("Image (channels × height × width)", format!("{channels} × {height} × {width}")),
            (
                "Preprocessing",
                format!(
                    "shorter side resized ({}) and center cropped to {crop_ratio} of it; mean {mean:?}, standard deviation {std:?}",
                    filter.trim_matches('"')
                ),
            ),
        ]
    }

    fn measured(&self) -> String {
        let Some(Run { plan, result: Some(result) }) = self.run else { return String::new() };
        let on = |images: usize| format!("{images} images");
        let (val, test) = (on(plan.derived.val_images), on(plan.derived.test_images));
        let mut rows = vec![
            ("Validation top-1", format!("{:.4} on {val}", result.val_top1)),
            ("Validation top-5", format!("{:.4}", result.val_top5)),
            ("Validation loss", format!("{:.4}", result.val_loss)),
        ];
        if let Some(top1) = result.test_top1 {
            rows.push(("Test top-1", format!("{top1:.4} on {test}")));
        }
        rows.extend([
            ("Training loss of the last epoch", format!("{:.4}", result.train_loss)),
            ("Training images", plan.derived.train_images.to_string()),
            ("Epochs, steps", format!("{}, {}", result.epochs, result.steps)),
            ("Seed", result.seed.to_string()),
            ("Seconds", format!("{:.0}", result.seconds)),
        ]);
        let note = "\nAccuracies are fractions. One run with one seed; other seeds differ.\n";
        table("Measured", &rows) + note
    }

    fn usage(&self) -> String {
        let mut text = "## Use\n\n".to_owned();
        match loaders_note(self.spec) {
            Some(note) => {
                let _ = writeln!(text, "{}.\n", capitalized(&note));
            }
            None => text.push_str(
                "```python\nimport timm\n\nmodel = timm.create_model(\"local-dir:DIR\", pretrained=True).eval()\n\
                 transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n```\n\n",
            ),
        }
        text.push_str("```sh\nfixnorm predict --weights DIR IMAGE\n```\n");
        text
    }

    fn recipe(&self) -> String {
        let Some(Run { plan, .. }) = self.run else { return String::new() };
        let recipe = plan.recipe.to_toml();
        format!(
            "## Recipe\n\nEvery value; `fixnorm train --recipe FILE` trains by it.\n\n```toml\n{recipe}```\n"
        )
    }
}

fn table(title: &str, rows: &[(&str, String)]) -> String {
    let mut text = format!("## {title}\n\n| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

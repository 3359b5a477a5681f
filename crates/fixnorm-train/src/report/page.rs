//! The page: one HTML file with its style and its few lines of script, which needs no network.
//! Not here: what is on it (`runs.rs`, `dissection.rs`, `study.rs`).

use std::fmt::Write;

use super::figure::{Drawing, Saved, Table, figure};
use super::style;
use super::svg::escape;

const SCRIPT: &str = include_str!("page.js");

/// A page that is being written.
pub(super) struct Page {
    body: String,
    /// Id and text of each heading.
    contents: Vec<(String, String)>,
    saved: Vec<Saved>,
    /// The last element is a figure, and the next one may stand beside it.
    in_figures: bool,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { body: String::new(), contents: vec![], saved: vec![], in_figures: false }
    }

    /// The files of the figures so far, in their order on the page.
    pub(super) fn saved(&self) -> &[Saved] {
        &self.saved
    }

    fn element(&mut self, html: &str) {
        if std::mem::take(&mut self.in_figures) {
            self.body.push_str("</div>");
        }
        self.body.push_str(html);
    }

    /// A heading that the table of contents lists.
    pub(super) fn heading(&mut self, text: &str) {
        let id = format!("s{}", self.contents.len());
        self.element(&format!("<h2 id=\"{id}\">{}</h2>", escape(text)));
        self.contents.push((id, text.to_owned()));
    }

    /// A heading within a section.
    pub(super) fn subheading(&mut self, text: &str) {
        self.element(&format!("<h3>{}</h3>", escape(text)));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.element(&format!("<p>{}</p>", escape(text)));
    }

    /// A drawing, its table folded under it, and buttons to save both. Where there is nothing to draw it is left out.
    pub(super) fn figure(&mut self, drawing: &dyn Drawing) {
        let Some((html, saved)) = figure(drawing, &style::file()) else { return };
        if !self.in_figures {
            self.body.push_str("<div class=\"figures\">");
            self.in_figures = true;
        }
        self.body.push_str(&html);
        self.saved.push(saved);
    }

    /// A table. Its last column is prose, which wraps.
    pub(super) fn prose_table(&mut self, table: &Table) {
        self.element(&table.html("prose"));
    }

    /// A table of short values.
    pub(super) fn table(&mut self, table: &Table) {
        self.element(&table.html(""));
    }

    /// A table with a column for each run, whose first column stays in view when it scrolls.
    pub(super) fn table_of_runs(&mut self, table: &Table) {
        self.element(&table.html("runs"));
    }

    /// Long text, folded.
    pub(super) fn folded_text(&mut self, summary: &str, text: &str) {
        let (summary, text) = (escape(summary), escape(text));
        self.element(&format!("<details><summary>{summary}</summary><pre>{text}</pre></details>"));
    }

    /// A part of the page, folded.
    pub(super) fn folded(&mut self, summary: &str, part: impl FnOnce(&mut Self)) {
        self.element(&format!("<details class=\"run\"><summary>{}</summary>", escape(summary)));
        part(self);
        self.element("</details>");
    }

    /// The whole file.
    pub(super) fn html(mut self, title: &str) -> String {
        self.element("");
        let title = escape(title);
        let mut contents = String::new();
        // A single section needs no table of contents.
        for (id, text) in self.contents.iter().filter(|_| self.contents.len() > 1) {
            let _ = write!(contents, "<li><a href=\"#{id}\">{}</a></li>", escape(text));
        }
        let nav = if contents.is_empty() {
            String::new()
        } else {
            format!("<nav aria-label=\"Contents\"><ul>{contents}</ul></nav>")
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\"><title>{title}</title>\n\
             <style>{}</style>\n<style id=\"plots\">{}</style></head>\n<body><main><h1>{title}</h1>{nav}\n\
             {}</main>\n<script>{SCRIPT}</script></body></html>\n",
            style::page(),
            style::drawings(),
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::heat_map::HeatMap;
    use super::*;

    fn map(title: &str, columns: Vec<f64>) -> HeatMap {
        let rows = vec![("row".to_owned(), columns.clone())];
        let (title, x) = (title.to_owned(), "x".to_owned());
        HeatMap { title, caption: String::new(), x, columns, rows }
    }

    #[test]
    fn figures_beside_each_other_are_closed_before_what_follows() {
        let mut page = Page::new();
        page.heading("a & b");
        page.figure(&map("First", vec![1.0, 2.0]));
        page.figure(&map("Nothing", vec![]));
        page.figure(&map("Second", vec![1.0, 2.0]));
        page.folded("More", |page| page.figure(&map("Third", vec![1.0])));
        assert_eq!(page.saved().len(), 3);
        let html = page.html("<title>");
        assert_eq!(html.matches("<div class=\"figures\">").count(), 2);
        for tag in ["div", "details", "figure", "svg", "ul", "table", "main"] {
            let open = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(html.contains("<title>&lt;title&gt;</title>") && html.contains("a &amp; b"));
        assert!(
            !html.contains("src=") && !html.contains("href=\"http") && !html.contains("@import")
        );
    }
}

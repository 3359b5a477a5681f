//! A figure: a drawing with its caption, its legend and the table of its values.
//! Not here: kinds of drawings (`plot.rs`, `heat_map.rs`, `forest.rs`), the page (`page.rs`).

use std::fmt::Write;

use super::frame::Frame;
use super::svg::{Svg, escape};

/// A drawing that can be shown in frames of different sizes.
pub(super) trait Drawing {
    /// Its heading, and in small letters the name of its files.
    fn title(&self) -> &str;

    /// What to look for, in a sentence.
    fn caption(&self) -> &str;

    /// The drawing; none where there is nothing to draw.
    fn svg(&self, frame: &Frame) -> Option<Svg>;

    /// The values that are drawn.
    fn table(&self) -> Table;

    /// The legend as HTML, where it needs one.
    fn legend(&self) -> String {
        String::new()
    }
}

/// A table of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    /// Each as long as the head.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// As HTML in a frame of its own, which scrolls where the table is wider than the page.
    pub(super) fn html(&self, class: &str) -> String {
        let mut html =
            format!("<div class=\"scroll\" tabindex=\"0\"><table class=\"{class}\"><thead><tr>");
        for cell in &self.head {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(cell));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for cell in row {
                let _ = write!(html, "<td>{}</td>", escape(cell));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
        html
    }

    /// As comma-separated values.
    pub(super) fn csv(&self) -> String {
        let cell = |cell: &String| {
            if cell.contains([',', '"', '\n']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",");
        std::iter::once(&self.head).chain(&self.rows).map(|row| line(row) + "\n").collect()
    }
}

/// The files of a figure.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// Without an extension.
    pub(super) name: String,
    pub(super) svg: String,
    pub(super) csv: String,
}

/// A figure as HTML and as files; none where there is nothing to draw.
pub(super) fn figure(drawing: &dyn Drawing, file_style: &str) -> Option<(String, Saved)> {
    let wide = drawing.svg(&Frame::WIDE)?;
    let narrow = drawing.svg(&Frame::NARROW)?;
    let name = file_name(drawing.title());
    let table = drawing.table();
    let html = format!(
        "<figure data-name=\"{name}\"><figcaption><b>{}</b> {}</figcaption><div><div class=\"drawing\">{}{}</div>{}\
         <details><summary>Table, SVG, CSV</summary>{}\
         <p class=\"save\"><button data-save=\"svg\">Save SVG</button> <button data-save=\"csv\">Save CSV</button></p></details></div></figure>",
        escape(drawing.title()),
        escape(drawing.caption()),
        wide.in_page("wide"),
        narrow.in_page("narrow"),
        drawing.legend(),
        table.html("numbers")
    );
    Some((html, Saved { name, svg: wide.file(file_style), csv: table.csv() }))
}

/// A title as the name of a file.
fn file_name(title: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = title.chars().map(plain).collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    let name = parts.join("-");
    // Below what file systems allow, with a number before it and an extension.
    name[name.len().saturating_sub(120)..].trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_escaped_and_quoted() {
        let text = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let table = Table { head: text(&["a", "b"]), rows: vec![text(&["x<y", "1,\"2\""])] };
        assert_eq!(table.csv(), "a,b\nx<y,\"1,\"\"2\"\"\"\n");
        assert!(table.html("t").contains("<td>x&lt;y</td>"));
    }

    #[test]
    fn file_names_are_plain_and_not_too_long() {
        assert_eq!(file_name("Loss of ../runs/a b"), "loss-of-runs-a-b");
        let long = file_name(&format!("Norms of {}/last", "directory/".repeat(40)));
        assert!(long.len() <= 120 && long.ends_with("-last"), "{long}");
    }
}

//! An SVG element: what is drawn, and what the page's script needs to show values.
//! Not here: drawings (`plot.rs`, `heat_map.rs`, `forest.rs`).

use std::fmt::Write;

use super::frame::Frame;

/// Text in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// How the script finds the value under the pointer.
#[derive(Clone, Debug)]
pub(super) enum Hover {
    /// The nearest row of the table, along x; a column for each series.
    Curves { x: String, y: String },
    /// The nearest row of the table in both directions; rows of series, x, y.
    Points { x: String, y: String },
    /// A cell: pixels of the left, right, top and bottom edge.
    Cells([f64; 4]),
    /// A row: pixels of the top and bottom edge.
    Rows([f64; 2]),
}

impl Hover {
    fn attributes(&self) -> String {
        let pixels =
            |edges: &[f64]| edges.iter().map(|edge| edge.to_string()).collect::<Vec<_>>().join(" ");
        match self {
            Self::Curves { x, y } => format!("data-hover=\"curves\" data-x=\"{x}\" data-y=\"{y}\""),
            Self::Points { x, y } => format!("data-hover=\"points\" data-x=\"{x}\" data-y=\"{y}\""),
            Self::Cells(edges) => format!("data-hover=\"cells\" data-edges=\"{}\"", pixels(edges)),
            Self::Rows(edges) => format!("data-hover=\"rows\" data-edges=\"{}\"", pixels(edges)),
        }
    }
}

/// A drawing. Its legend lies below `height`: the page hides it and has one of its own, which wraps; files show it.
#[derive(Clone, Debug)]
pub(super) struct Svg {
    pub(super) title: String,
    pub(super) width: f64,
    pub(super) height: f64,
    /// With the legend.
    pub(super) full_height: f64,
    pub(super) hover: Hover,
    pub(super) body: String,
}

impl Svg {
    /// For the page, of a class that says on which screens it is shown.
    pub(super) fn in_page(&self, class: &str) -> String {
        let attributes = format!(
            "class=\"{class}\" data-full=\"{:.0}\" {}",
            self.full_height,
            self.hover.attributes()
        );
        self.element(self.height, &attributes, "")
    }

    /// A file of its own, with its style.
    pub(super) fn file(&self, style: &str) -> String {
        self.element(self.full_height, "", &format!("<style>{style}</style>"))
    }

    fn element(&self, height: f64, attributes: &str, style: &str) -> String {
        format!(
            "<svg {attributes} viewBox=\"0 0 {} {height:.0}\" role=\"img\" aria-label=\"{}\" \
             xmlns=\"http://www.w3.org/2000/svg\">{style}{}</svg>",
            self.width,
            escape(&self.title),
            self.body
        )
    }
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Appends a text with its baseline at `(x, y)`.
pub(super) fn text(body: &mut String, anchor: Anchor, x: f64, y: f64, text: &str) {
    let class = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " class=\"middle\"",
        Anchor::End => " class=\"end\"",
    };
    let _ = write!(body, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
}

/// Appends a line of the grid.
pub(super) fn grid_line(body: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(
        body,
        "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// The name of an x axis, under its ticks, cut where it is wider than `from..to`.
pub(super) fn x_label(body: &mut String, from: f64, to: f64, y: f64, label: &str) {
    let label = &super::names::shortened(&[label], Frame::characters(to - from))[0];
    text(body, Anchor::Middle, (from + to) / 2.0, y, label);
}

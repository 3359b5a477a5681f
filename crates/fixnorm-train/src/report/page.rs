//! The page: one HTML file with its style and its few lines of script, and nothing from a network.
//! Not here: what stands on it (`sections.rs`).

use std::fmt::Write;

use super::forest::Forest;
use super::plot::{HeatMap, Plot};

/// Text in HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
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

/// A picture with its table.
#[derive(Clone, Debug)]
pub(crate) enum Figure {
    Plot(Plot),
    HeatMap(HeatMap),
    Forest(Forest),
}

impl Figure {
    pub(crate) fn has_data(&self) -> bool {
        match self {
            Figure::Plot(plot) => plot.has_data(),
            Figure::HeatMap(map) => map.has_data(),
            Figure::Forest(forest) => forest.has_data(),
        }
    }

    pub(crate) fn title(&self) -> &str {
        match self {
            Figure::Plot(plot) => &plot.title,
            Figure::HeatMap(map) => &map.title,
            Figure::Forest(forest) => &forest.title,
        }
    }

    fn caption(&self) -> &str {
        match self {
            Figure::Plot(plot) => &plot.caption,
            Figure::HeatMap(map) => &map.caption,
            Figure::Forest(forest) => &forest.caption,
        }
    }

    fn svg(&self) -> String {
        match self {
            Figure::Plot(plot) => plot.svg(),
            Figure::HeatMap(map) => map.svg(),
            Figure::Forest(forest) => forest.svg(),
        }
    }

    fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        match self {
            Figure::Plot(plot) => plot.table(),
            Figure::HeatMap(map) => map.table(),
            Figure::Forest(forest) => forest.table(),
        }
    }

    /// A file of its own, with the light style in it.
    pub(crate) fn svg_file(&self) -> String {
        let svg = self.svg();
        let style = format!("><style>{LIGHT_ALONE}{SVG_STYLE}</style>");
        svg.replacen('>', &style, 1)
    }

    /// The table as comma-separated values.
    pub(crate) fn csv(&self) -> String {
        let (head, rows) = self.table();
        let cell = |cell: &String| match cell.contains([',', '"', '\n']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",");
        std::iter::once(&head).chain(&rows).map(|row| line(row) + "\n").collect()
    }

    /// A name for its files.
    pub(crate) fn file_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = self.title().chars().map(plain).collect();
        let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
        parts.join("-")
    }
}

/// A page that is being written.
pub(crate) struct Page {
    body: String,
    contents: Vec<(String, String)>,
    figures: Vec<Figure>,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self { body: String::new(), contents: vec![], figures: vec![] }
    }

    /// The figures so far.
    pub(crate) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    pub(crate) fn heading(&mut self, text: &str) {
        let id = format!("s{}", self.contents.len());
        let _ = write!(self.body, "<h2 id=\"{id}\">{}</h2>", escape(text));
        self.contents.push((id, text.to_owned()));
    }

    pub(crate) fn text(&mut self, text: &str) {
        let _ = write!(self.body, "<p>{}</p>", escape(text));
    }

    /// A picture, its table folded under it, and buttons to save both. Without data there is none.
    pub(crate) fn figure(&mut self, figure: Figure) {
        if !figure.has_data() {
            return;
        }
        let name = figure.file_name();
        let _ = write!(
            self.body,
            "<figure data-name=\"{name}\"><figcaption><b>{}</b> {}</figcaption>{}<details><summary>Table</summary>",
            escape(figure.title()),
            escape(figure.caption()),
            figure.svg()
        );
        let (head, rows) = figure.table();
        self.table_of(&head, &rows, true);
        self.body.push_str(
            "</details><p class=\"save\"><button data-save=\"svg\">Save SVG</button> <button data-save=\"csv\">Save CSV</button></p></figure>",
        );
        self.figures.push(figure);
    }

    pub(crate) fn table(&mut self, head: &[String], rows: &[Vec<String>]) {
        self.table_of(head, rows, false);
    }

    fn table_of(&mut self, head: &[String], rows: &[Vec<String>], numbers: bool) {
        let class = if numbers { " class=\"numbers\"" } else { "" };
        let _ = write!(self.body, "<div class=\"scroll\"><table{class}><thead><tr>");
        for cell in head {
            let _ = write!(self.body, "<th scope=\"col\">{}</th>", escape(cell));
        }
        self.body.push_str("</tr></thead><tbody>");
        for row in rows {
            self.body.push_str("<tr>");
            for cell in row {
                let _ = write!(self.body, "<td>{}</td>", escape(cell));
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</tbody></table></div>");
    }

    /// Long text, folded.
    pub(crate) fn folded(&mut self, summary: &str, text: &str) {
        let _ = write!(
            self.body,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(summary),
            escape(text)
        );
    }

    pub(crate) fn html(&self, title: &str) -> String {
        let title = escape(title);
        let link = |(id, text): &(String, String)| {
            format!("<li><a href=\"#{id}\">{}</a></li>", escape(text))
        };
        let contents: String = self.contents.iter().map(link).collect();
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\"><title>{title}</title>\
             <style>{STYLE}</style><style id=\"plots\">{SVG_STYLE}</style></head><body><main><h1>{title}</h1>\
             <nav aria-label=\"Contents\"><ul>{contents}</ul></nav>{}</main>\
             <script>{SCRIPT}</script></body></html>\n",
            self.body
        )
    }
}

/// Okabe and Ito's colours, which differ for people with any kind of colour blindness; on a dark ground black
/// becomes white.
const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--ink:#1b1b1b;--faint:#5c5c5c;--rule:#dcdcdc;--heat:#0072b2;\
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#56b4e9;--c6:#1b1b1b;--c7:#8c564b}\
@media (prefers-color-scheme:dark){:root{--ground:#16181b;--ink:#ececec;--faint:#a9a9a9;--rule:#3a3d42;--heat:#56b4e9;\
--c0:#56b4e9;--c1:#ff9248;--c2:#2ecc9b;--c3:#e6a0c8;--c4:#f0e442;--c5:#4d8fd6;--c6:#ececec;--c7:#c49c94}}\
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1rem}h1{font-size:1.6rem;overflow-wrap:anywhere}\
h2{margin-top:2.5rem;border-bottom:1px solid var(--rule)}\
a{color:inherit}nav ul{padding-left:1.2rem;columns:2}figure{margin:1.5rem 0}figcaption{margin-bottom:.3rem}\
svg{width:100%;height:auto}.scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:left;white-space:nowrap}\
table:not(.numbers) td:last-child{white-space:normal;min-width:12rem}table.numbers{font-size:.8rem}details>.scroll{max-height:24rem;overflow:auto}\
pre{overflow-x:auto;font-size:.8rem}summary{cursor:pointer;color:var(--faint)}.save{margin:.3rem 0}\
button{font:inherit;font-size:.8rem;color:inherit;background:none;border:1px solid var(--rule);border-radius:.3rem;padding:.1rem .5rem}\
@media print{:root{--ground:#fff;--ink:#000;--faint:#444;--rule:#bbb}.save,nav{display:none}figure{break-inside:avoid}}\
@media (max-width:40rem){nav ul{columns:1}svg text{font-size:20px}}";

const SVG_STYLE: &str = "\
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .end{text-anchor:end}svg .middle{text-anchor:middle}\
svg .grid{stroke:var(--rule);stroke-width:1}svg .line{fill:none;stroke-width:1.8}svg .dashed{stroke-dasharray:6 4}svg .dotted{stroke-dasharray:2 2.5}\
svg .bar{fill-opacity:.45}svg .heat{fill:var(--heat)}\
svg .line.c0{stroke:var(--c0)}svg .line.c1{stroke:var(--c1)}svg .line.c2{stroke:var(--c2)}svg .line.c3{stroke:var(--c3)}\
svg .line.c4{stroke:var(--c4)}svg .line.c5{stroke:var(--c5)}svg .line.c6{stroke:var(--c6)}svg .line.c7{stroke:var(--c7)}\
svg .point.c0,svg .bar.c0{fill:var(--c0)}svg .point.c1,svg .bar.c1{fill:var(--c1)}svg .point.c2,svg .bar.c2{fill:var(--c2)}\
svg .point.c3,svg .bar.c3{fill:var(--c3)}svg .point.c4,svg .bar.c4{fill:var(--c4)}svg .point.c5,svg .bar.c5{fill:var(--c5)}\
svg .point.c6,svg .bar.c6{fill:var(--c6)}svg .point.c7,svg .bar.c7{fill:var(--c7)}";

/// The variables of a picture that stands alone.
const LIGHT_ALONE: &str = "\
svg{background:#fff;--ink:#1b1b1b;--rule:#dcdcdc;--heat:#0072b2;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;\
--c4:#b8860b;--c5:#56b4e9;--c6:#1b1b1b;--c7:#8c564b}";

const SCRIPT: &str = "\
document.addEventListener('click',e=>{const kind=e.target.dataset&&e.target.dataset.save;if(!kind)return;\
const figure=e.target.closest('figure');let text,type;\
if(kind==='csv'){const cell=c=>{const t=c.textContent;return/[\",\\n]/.test(t)?'\"'+t.replace(/\"/g,'\"\"')+'\"':t};\
text=[...figure.querySelectorAll('tr')].map(r=>[...r.children].map(cell).join(',')).join('\\n')+'\\n';type='text/csv'}\
else{const svg=figure.querySelector('svg').cloneNode(true),root=getComputedStyle(document.documentElement);\
const names=['ground','ink','rule','heat','c0','c1','c2','c3','c4','c5','c6','c7'];\
const style=document.createElementNS('http://www.w3.org/2000/svg','style');\
style.textContent='svg{background:'+root.getPropertyValue('--ground')+';'+names.map(n=>'--'+n+':'+root.getPropertyValue('--'+n)).join(';')+'}'+document.getElementById('plots').textContent;\
svg.prepend(style);text=new XMLSerializer().serializeToString(svg);type='image/svg+xml'}\
const link=document.createElement('a');link.href=URL.createObjectURL(new Blob([text],{type}));\
link.download=figure.dataset.name+'.'+kind;link.click();URL.revokeObjectURL(link.href)});";

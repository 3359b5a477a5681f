//! Styles of the page and of drawings that are saved as files.

const PAGE: &str = include_str!("page.css");
const DRAWINGS: &str = include_str!("plots.css");

// Okabe and Ito's colours, which differ for people with any kind of colour blindness; on a dark background lighter
// ones, and black becomes white.
const LIGHT: &str = "--ground:#fff;--ink:#1b1b1b;--faint:#5c5c5c;--rule:#dcdcdc;--heat:#0072b2;--c0:#0072b2;\
                     --c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#56b4e9;--c6:#1b1b1b;--c7:#8c564b";
const DARK: &str = "--ground:#16181b;--ink:#ececec;--faint:#a9a9a9;--rule:#3a3d42;--heat:#56b4e9;--c0:#56b4e9;\
                    --c1:#ff9248;--c2:#2ecc9b;--c3:#e6a0c8;--c4:#f0e442;--c5:#4d8fd6;--c6:#ececec;--c7:#c49c94";

/// Returns the style of the page. Paper is always light.
pub(super) fn page() -> String {
    format!(
        ":root{{{LIGHT}}}@media screen and (prefers-color-scheme:dark){{:root{{{DARK}}}}}\n{PAGE}"
    )
}

/// Returns the style of drawings on the page; the script copies it into those that it saves.
pub(super) fn drawings() -> &'static str {
    DRAWINGS
}

/// Returns the style of a drawing in a file of its own.
pub(super) fn file() -> String {
    format!("svg{{background:#fff;{LIGHT}}}\n{DRAWINGS}")
}

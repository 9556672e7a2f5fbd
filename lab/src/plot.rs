//! Line plots as SVG text: same data, same bytes.

use std::fmt::Write as _;

mod scale;

use scale::Scale;

/// Five colours that people with colour blindness can tell apart (Okabe and Ito), dark enough for a white page.
pub const PALETTE: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#a6508a", "#8a6d00"];

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 888.0;
const BOTTOM: f64 = 424.0;
const LEGEND_ROW: f64 = 20.0;
const MARKER_ROW: f64 = 15.0;
/// Average width of a letter at the size of labels; only the room for text depends on it.
const LETTER: f64 = 6.6;

const INK: &str = "#1f2430";
const SOFT: &str = "#5b6270";
const GRID: &str = "#e3e6eb";

/// Which vertical axis a series belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The left one.
    Left,
    /// The right one.
    Right,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A line from point to point.
    Line,
    /// The same, dashed.
    Dashed,
    /// A value that holds until the next point, as a limit does.
    Step,
    /// A line with its area filled.
    Area,
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// Its colour as SVG takes it.
    pub color: String,
    /// Its points in order of x; one that is not finite leaves a gap.
    pub points: Vec<(f64, f64)>,
    /// The axis of its values.
    pub axis: Axis,
    /// How it is drawn.
    pub style: Style,
}

/// An event: a vertical line with a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Marker {
    /// When.
    pub x: f64,
    /// What.
    pub label: String,
}

/// A plot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Name and unit of the horizontal axis.
    pub x_axis: String,
    /// Name and unit of the left axis.
    pub left_axis: String,
    /// Name and unit of the right axis; not drawn when no series uses it.
    pub right_axis: String,
    /// The series, the last on top.
    pub series: Vec<Series>,
    /// The events.
    pub markers: Vec<Marker>,
}

/// Draws the plot.
pub fn svg(plot: &Plot) -> String {
    let mut page = Page {
        text: String::new(),
    };
    page.open(&plot.title);
    let legend_end = page.legend(&plot.series);
    let finite = || {
        plot.series
            .iter()
            .flat_map(|series| &series.points)
            .filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let x = Scale::over(finite().map(|(x, _)| *x), LEFT, RIGHT);
    let (rows, marker_texts) = place_markers(&plot.markers, &x);
    let top = legend_end + 10.0 + MARKER_ROW * f64::from(rows);
    let of_axis = |axis: Axis| {
        let series = plot.series.iter().filter(move |series| series.axis == axis);
        series
            .flat_map(|series| &series.points)
            .map(|(_, y)| *y)
            .filter(|y| y.is_finite())
    };
    let left = Scale::from_zero(of_axis(Axis::Left), BOTTOM, top);
    let right = Scale::from_zero(of_axis(Axis::Right), BOTTOM, top);
    page.horizontal_axis(&x, &plot.x_axis);
    page.vertical_axis(&left, &plot.left_axis, Axis::Left, top);
    if plot.series.iter().any(|series| series.axis == Axis::Right) {
        page.vertical_axis(&right, &plot.right_axis, Axis::Right, top);
    }
    let text_y = |row: u32| top - 6.0 - MARKER_ROW * f64::from(row);
    for (marker, (_, row)) in plot.markers.iter().zip(&marker_texts) {
        page.marker_line(x.at(marker.x), text_y(*row) + 3.0);
    }
    for (marker, (text_x, row)) in plot.markers.iter().zip(&marker_texts) {
        page.marker_text(&marker.label, *text_x, text_y(*row));
    }
    for series in &plot.series {
        page.series(
            series,
            &x,
            if series.axis == Axis::Left {
                &left
            } else {
                &right
            },
        );
    }
    page.text.push_str("</svg>\n");
    page.text
}

/// Gives each text a row in which it does not touch another: the number of rows, and (x, row) for each marker.
fn place_markers(markers: &[Marker], x: &Scale) -> (u32, Vec<(f64, u32)>) {
    let mut ends: Vec<f64> = Vec::new();
    let mut order: Vec<usize> = (0..markers.len()).collect();
    order.sort_by(|a, b| markers[*a].x.total_cmp(&markers[*b].x));
    let mut places = vec![(LEFT, 0); markers.len()];
    for index in order {
        let width = text_width(&markers[index].label);
        // A text at the right edge is moved inwards.
        let begin = x.at(markers[index].x).min(RIGHT - width).max(LEFT);
        let row = ends
            .iter()
            .position(|end| *end + 10.0 <= begin)
            .unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(0.0);
        }
        ends[row] = begin + width;
        places[index] = (begin, u32::try_from(row).unwrap_or(0));
    }
    (u32::try_from(ends.len()).unwrap_or(0), places)
}

fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

struct Page {
    text: String,
}

impl Page {
    /// Writes one line; writing to a String cannot fail.
    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(arguments);
        self.text.push('\n');
    }

    fn open(&mut self, title: &str) {
        self.line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\" font-size=\"12\" \
             role=\"img\" aria-label=\"{}\">",
            escape(title)
        ));
        self.line(format_args!(
            "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        ));
        self.line(format_args!(
            "<text x=\"{LEFT}\" y=\"30\" font-size=\"17\" font-weight=\"600\" fill=\"{INK}\">{}</text>",
            escape(title)
        ));
    }

    /// Names of the series in rows under the title; returns where they end.
    fn legend(&mut self, series: &[Series]) -> f64 {
        let (mut x, mut y) = (LEFT, 54.0);
        for series in series {
            let width = 30.0 + text_width(&series.label) + 18.0;
            if x > LEFT && x + width > RIGHT {
                (x, y) = (LEFT, y + LEGEND_ROW);
            }
            let (end, middle) = (num(x + 22.0), num(y - 4.0));
            self.line(format_args!(
                "<line x1=\"{}\" y1=\"{middle}\" x2=\"{end}\" y2=\"{middle}\" stroke=\"{}\" stroke-width=\"3\"{}/>",
                num(x),
                escape(&series.color),
                dash(series.style)
            ));
            self.line(format_args!(
                "<text x=\"{}\" y=\"{}\" fill=\"{INK}\">{}</text>",
                num(x + 28.0),
                num(y),
                escape(&series.label)
            ));
            x += width;
        }
        y
    }

    fn horizontal_axis(&mut self, x: &Scale, name: &str) {
        for tick in x.ticks() {
            let at = num(x.at(tick));
            self.line(format_args!(
                "<line x1=\"{at}\" y1=\"{BOTTOM}\" x2=\"{at}\" y2=\"{}\" stroke=\"{SOFT}\"/>",
                num(BOTTOM + 5.0)
            ));
            self.line(format_args!(
                "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" fill=\"{SOFT}\">{}</text>",
                num(BOTTOM + 19.0),
                num(tick)
            ));
        }
        self.line(format_args!(
            "<line x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\" stroke=\"{SOFT}\"/>"
        ));
        self.line(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{INK}\">{}</text>",
            num(f64::midpoint(LEFT, RIGHT)),
            num(BOTTOM + 42.0),
            escape(name)
        ));
    }

    fn vertical_axis(&mut self, y: &Scale, name: &str, axis: Axis, top: f64) {
        let (text_x, anchor, name_x) = if axis == Axis::Left {
            (LEFT - 8.0, "end", 20.0)
        } else {
            (RIGHT + 8.0, "start", WIDTH - 14.0)
        };
        for tick in y.ticks() {
            let at = y.at(tick);
            // One grid for both axes: their ticks are at the same heights.
            if axis == Axis::Left && tick > 0.0 {
                self.line(format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{0}\" x2=\"{RIGHT}\" y2=\"{0}\" stroke=\"{GRID}\"/>",
                    num(at)
                ));
            }
            self.line(format_args!(
                "<text x=\"{text_x}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"{SOFT}\">{}</text>",
                num(at + 4.0),
                num(tick)
            ));
        }
        let middle = num(f64::midpoint(BOTTOM, top));
        self.line(format_args!(
            "<text x=\"{name_x}\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 {name_x} {middle})\" \
             fill=\"{INK}\">{}</text>",
            escape(name)
        ));
    }

    fn marker_line(&mut self, x: f64, from: f64) {
        let (x, from) = (num(x), num(from));
        self.line(format_args!(
            "<line x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{BOTTOM}\" stroke=\"{SOFT}\" stroke-dasharray=\"3 3\"/>"
        ));
    }

    /// A text on a white seam, so that a line of another marker behind it does not strike it out.
    fn marker_text(&mut self, label: &str, x: f64, y: f64) {
        self.line(format_args!(
            "<text x=\"{}\" y=\"{}\" font-size=\"11\" fill=\"{SOFT}\" stroke=\"#ffffff\" stroke-width=\"4\" \
             stroke-linejoin=\"round\" paint-order=\"stroke\">{}</text>",
            num(x),
            num(y),
            escape(label)
        ));
    }

    fn series(&mut self, series: &Series, x: &Scale, y: &Scale) {
        let color = escape(&series.color);
        for run in series
            .points
            .split(|(x, y)| !x.is_finite() || !y.is_finite())
            .filter(|run| !run.is_empty())
        {
            let path = path(run, series.style, x, y);
            if series.style == Style::Area {
                let (first, last, zero) = (
                    num(x.at(run[0].0)),
                    num(x.at(run[run.len() - 1].0)),
                    num(y.at(0.0)),
                );
                self.line(format_args!(
                    "<path d=\"{path} L{last} {zero} L{first} {zero} Z\" fill=\"{color}\" fill-opacity=\"0.14\"/>"
                ));
            }
            self.line(format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-linejoin=\"round\" \
                 stroke-linecap=\"round\"{}/>",
                dash(series.style)
            ));
        }
    }
}

fn path(points: &[(f64, f64)], style: Style, x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    for (index, (at, value)) in points.iter().enumerate() {
        let (at, value) = (num(x.at(*at)), num(y.at(*value)));
        let _ = match (index, style) {
            (0, _) => write!(path, "M{at} {value}"),
            (_, Style::Step) => write!(path, " H{at} V{value}"),
            _ => write!(path, " L{at} {value}"),
        };
    }
    path
}

fn dash(style: Style) -> &'static str {
    if style == Style::Dashed {
        " stroke-dasharray=\"6 4\""
    } else {
        ""
    }
}

/// At most two decimals, without trailing zeros or a negative zero.
fn num(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

//! A run as a picture: SVG with the same bytes for the same run.

use std::fmt::Write as _;

use super::Second;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 46.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 34.0;
/// Seconds of which a point is the mean.
const STEP: usize = 3;

/// A line of the picture: its name, colour, width, dashes, and value at a second.
struct Line {
    name: &'static str,
    colour: &'static str,
    width: f64,
    dashes: &'static str,
    value: fn(&Second) -> Option<f64>,
}

const LINES: [Line; 4] = [
    Line {
        name: "offered",
        colour: "#888888",
        width: 1.0,
        dashes: "",
        value: |s| Some(s.meant),
    },
    Line {
        name: "capacity",
        colour: "#222222",
        width: 1.2,
        dashes: "5 3",
        value: |s| Some(s.capacity),
    },
    Line {
        name: "limit",
        colour: "#1f5fbf",
        width: 1.4,
        dashes: "",
        value: |s| s.limit,
    },
    Line {
        name: "answered in time",
        colour: "#1a8f3c",
        width: 2.0,
        dashes: "",
        value: |s| Some(s.good),
    },
];

/// The picture of a scenario: one panel for each law, with the seconds of its run.
pub fn picture(title: &str, runs: &[(&str, &[Second])]) -> String {
    let height = TOP + runs.len() as f64 * (PANEL + GAP) + 4.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT:.0}\" y=\"16\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n"
    );
    legend(&mut svg);
    let seconds = runs.iter().map(|(_, run)| run.len()).max().unwrap_or(0);
    let most = top_of_scale(runs);
    for (index, (law, run)) in runs.iter().enumerate() {
        let top = TOP + index as f64 * (PANEL + GAP);
        panel(&mut svg, law, run, top, seconds, most);
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for line in &LINES {
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.0}\" y1=\"28\" x2=\"{:.0}\" y2=\"28\" stroke=\"{}\" stroke-width=\"{:.1}\" stroke-dasharray=\"{}\"/>\
             <text x=\"{:.0}\" y=\"32\">{}</text>",
            x + 22.0,
            line.colour,
            line.width,
            line.dashes,
            x + 27.0,
            line.name
        );
        x += 50.0 + 7.0 * line.name.len() as f64;
    }
}

/// A round number above all that is drawn, but for a flash crowd that would press all else to the ground.
fn top_of_scale(runs: &[(&str, &[Second])]) -> f64 {
    let seconds = || runs.iter().flat_map(|(_, run)| run.iter());
    let capacity = seconds().map(|s| s.capacity).fold(1.0, f64::max);
    let offered = seconds().map(|s| s.meant).fold(1.0, f64::max);
    (offered.min(2.2 * capacity).max(1.1 * capacity) / 100.0).ceil() * 100.0
}

fn panel(svg: &mut String, law: &str, run: &[Second], top: f64, seconds: usize, most: f64) {
    let wide = WIDTH - LEFT - RIGHT;
    let x = |second: f64| LEFT + wide * second / seconds.max(1) as f64;
    let y = |value: f64| top + PANEL * (1.0 - value.min(most) / most);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT:.0}\" y=\"{top:.0}\" width=\"{wide:.0}\" height=\"{PANEL:.0}\" fill=\"none\" stroke=\"#cccccc\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\" font-weight=\"bold\">{law}</text>",
        LEFT + 6.0,
        top + 14.0
    );
    for part in [0.0, 0.5, 1.0] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{:.0}</text>",
            LEFT - 5.0,
            y(part * most) + 4.0,
            part * most
        );
    }
    for minute in (0..=seconds).step_by(60) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{minute}</text>",
            x(minute as f64),
            top + PANEL + 14.0
        );
    }
    for line in &LINES {
        let mut points = String::new();
        for (index, part) in run.chunks(STEP).enumerate() {
            let known: Vec<f64> = part.iter().filter_map(line.value).collect();
            if known.is_empty() {
                continue;
            }
            let mean = known.iter().sum::<f64>() / known.len() as f64;
            let _ = write!(points, "{:.1},{:.1} ", x((index * STEP) as f64), y(mean));
        }
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{:.1}\" stroke-dasharray=\"{}\" points=\"{}\"/>",
            line.colour,
            line.width,
            line.dashes,
            points.trim_end()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_run_is_the_same_picture_and_a_limit_that_is_absent_has_no_point() {
        let second = Second {
            meant: 400.0,
            capacity: 200.0,
            good: 190.0,
            ..Second::default()
        };
        let run = vec![second; 9];
        let svg = picture("2x", &[("none", &run), ("trimtab", &run)]);
        assert_eq!(svg, picture("2x", &[("none", &run), ("trimtab", &run)]));
        assert_eq!(svg.matches("<polyline").count(), 8);
        assert_eq!(svg.matches("points=\"\"").count(), 2);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}

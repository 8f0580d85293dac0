//! Plots as SVG: lines over a logarithmic or linear axis, and bars. No more than the report needs, and readable on a light and on a
//! dark page.

use crate::table::number;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
const COLOURS: [&str; 8] = [
    "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f",
];

/// How values are laid out along an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

pub struct Axis {
    pub name: &'static str,
    pub scale: Scale,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    /// What the axis spans, so that all values are on it.
    fn span(&self, values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let max = values.clone().fold(f64::MIN, f64::max);
        match self.scale {
            Scale::Linear => (0.0, if max > 0.0 { max * 1.05 } else { 1.0 }),
            Scale::Log => {
                let min = values.filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
                let (min, max) = (min.min(max), max.max(min));
                (min / 1.1, max * 1.1)
            }
        }
    }

    fn share(&self, (from, to): (f64, f64), value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - from) / (to - from),
            Scale::Log => (value.max(from) / from).ln() / (to / from).ln(),
        }
    }

    /// Where it is marked: round numbers, a handful.
    fn marks(&self, (from, to): (f64, f64)) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (to - from) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let count = (to / step).floor() as usize;
                (0..=count).map(|index| index as f64 * step).collect()
            }
            Scale::Log => {
                let narrow = to / from < 30.0;
                let mut marks = Vec::new();
                for power in (from.log10().floor() as i32)..=(to.log10().ceil() as i32) {
                    let factors: &[f64] = if narrow { &[1.0, 2.0, 5.0] } else { &[1.0] };
                    marks.extend(factors.iter().map(|factor| factor * 10f64.powi(power)));
                }
                marks.retain(|mark| *mark >= from && *mark <= to);
                marks
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 {
        format!("{value:.0}")
    } else {
        number(value)
    }
}

fn begin(title: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    )
}

/// One line a series, its name to the right at its end.
pub fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (xs, ys) = (x.span(points().map(|p| p.0)), y.span(points().map(|p| p.1)));
    let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let across = |value: f64| LEFT + wide * x.share(xs, value);
    let up = |value: f64| TOP + high * (1.0 - y.share(ys, value));
    let mut svg = begin(title, HEIGHT);
    for mark in y.marks(ys) {
        let at = up(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + wide,
            LEFT - 6.0,
            at + 4.0,
            short(mark)
        );
    }
    for mark in x.marks(xs) {
        let at = across(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP + high,
            TOP + high + 16.0,
            short(mark)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        LEFT + wide / 2.0,
        HEIGHT - 12.0,
        escape(x.name),
        TOP + high / 2.0,
        escape(y.name)
    );
    // Names keep a distance from each other, in the order of the ends.
    let end = |line: &Line| line.points.last().map_or(0.0, |point| up(point.1));
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|a, b| end(&lines[*a]).total_cmp(&end(&lines[*b])));
    let mut below = TOP;
    for index in order {
        let (line, colour) = (&lines[index], COLOURS[index % COLOURS.len()]);
        let path: Vec<String> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", across(point.0), up(point.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        if line.points.len() <= 12 {
            for point in &line.points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    across(point.0),
                    up(point.1)
                );
            }
        }
        below = (end(line) + 4.0).max(below + 15.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{below:.1}\" fill=\"{colour}\">{}</text>",
            LEFT + wide + 8.0,
            escape(&line.name)
        );
    }
    svg + "</svg>\n"
}

/// Horizontal bars with their values.
pub fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    const THICK: f64 = 24.0;
    const NAMES: f64 = 150.0;
    let height = TOP + THICK * bars.len() as f64 + 16.0;
    let max = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = begin(title, height);
    for (index, (name, value)) in bars.iter().enumerate() {
        let (top, long) = (TOP + THICK * index as f64, (WIDTH - NAMES - 110.0) * value / max);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{top:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {unit}</text>",
            NAMES - 8.0,
            top + 14.0,
            escape(name),
            THICK - 6.0,
            COLOURS[1],
            NAMES + long + 6.0,
            top + 14.0,
            number(*value)
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn values_lie_where_the_axis_says() {
        let log = Axis {
            name: "x",
            scale: Scale::Log,
        };
        let span = log.span([1.0, 10.0, 1000.0].into_iter());
        assert_eq!(log.marks(span), [1.0, 10.0, 100.0, 1000.0]);
        let share = log.share(span, 1000.0) - log.share(span, 100.0);
        assert!((share - (log.share(span, 100.0) - log.share(span, 10.0))).abs() < 1e-9);
        let linear = Axis {
            name: "y",
            scale: Scale::Linear,
        };
        let span = linear.span([250.0].into_iter());
        assert_eq!(linear.marks(span), [0.0, 100.0, 200.0]);
        assert!(linear.share(span, 250.0) < 1.0 && linear.share(span, 0.0) == 0.0);
    }

    #[test]
    fn a_plot_has_all_its_lines_and_no_markup_of_others() {
        let line = |name: &str| Line {
            name: name.into(),
            points: vec![(1.0, 2.0), (10.0, 3.0)],
        };
        let axis = || Axis {
            name: "a",
            scale: Scale::Log,
        };
        let svg = lines("t", &axis(), &axis(), &[line("<b>"), line("c")]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("&lt;b&gt;") && svg.ends_with("</svg>\n"));
    }
}

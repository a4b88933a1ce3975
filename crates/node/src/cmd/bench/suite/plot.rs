//! Plots as SVG, written by hand: lines with points, whiskers from the least to the most, axes
//! and a legend. Whatever is text is escaped.

use std::fmt::Write;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What stands below the x axis.
    pub x: String,
    /// What stands beside the y axis.
    pub y: String,
    /// Whether x is on a logarithmic scale.
    pub log_x: bool,
    /// The lines, in order of their colours.
    pub lines: Vec<Line>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, connected in this order.
    pub dots: Vec<Dot>,
}

/// A point.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Where.
    pub x: f64,
    /// How high.
    pub y: f64,
    /// From the least to the most, where there were several runs.
    pub range: Option<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 520.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 290.0;
const COLOURS: [&str; 6] = ["#2563eb", "#dc2626", "#16a34a", "#9333ea", "#d97706", "#475569"];

/// Text inside of markup.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A number as people read it: 12.3 M, 4.5 k.
#[must_use]
pub fn number(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        big if big >= 1e9 => (value / 1e9, " G"),
        big if big >= 1e6 => (value / 1e6, " M"),
        big if big >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        whole if whole >= 100.0 => 0,
        some if some >= 10.0 => 1,
        few if few >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{scaled:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// How values become places.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (low, high) = (of(self.low), of(self.high));
        let share = if high > low { (of(value) - low) / (high - low) } else { 0.5 };
        self.from + share * (self.to - self.from)
    }

    /// Where lines are drawn across.
    fn ticks(&self) -> Vec<f64> {
        let span = self.high - self.low;
        if span <= 0.0 {
            return vec![self.low];
        }
        let rough = span / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

impl Chart {
    /// The SVG element; none where there is nothing to draw.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let dots = || self.lines.iter().flat_map(|line| &line.dots);
        let xs: Vec<f64> = dots().map(|dot| dot.x).collect();
        let highest = dots().map(|dot| dot.range.map_or(dot.y, |range| range.1.max(dot.y)));
        let highest = highest.fold(0.0, f64::max);
        let low = xs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = xs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if xs.is_empty() || highest <= 0.0 {
            return None;
        }
        let log = self.log_x && low > 0.0;
        let x =
            Scale { low: if log { low } else { low.min(0.0) }, high, from: LEFT, to: RIGHT, log };
        let y = Scale { low: 0.0, high: highest * 1.05, from: BOTTOM, to: TOP, log: false };
        let mut out = String::new();
        self.write(&mut out, &x, &y, &xs).expect("writing to a string does not fail");
        Some(out)
    }

    fn write(&self, out: &mut String, x: &Scale, y: &Scale, xs: &[f64]) -> std::fmt::Result {
        let label = format!("{} by {}", self.y, self.x);
        writeln!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&label)
        )?;
        for tick in y.ticks() {
            let (at, text) = (y.place(tick), number(tick));
            writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>")?;
            let (left, at) = (LEFT - 6.0, at + 4.0);
            writeln!(out, "<text x=\"{left}\" y=\"{at:.1}\" text-anchor=\"end\">{text}</text>")?;
        }
        // On a logarithmic scale the points themselves are the ticks.
        let mut ticks = if x.log { xs.to_vec() } else { x.ticks() };
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let mut free = f64::NEG_INFINITY;
        for tick in ticks {
            let (at, text, below) = (x.place(tick), number(tick), BOTTOM + 16.0);
            if at < free {
                continue;
            }
            free = at + 34.0;
            writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/>")?;
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>"
            )?;
        }
        writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>")?;
        let (middle, below) = (f64::midpoint(LEFT, RIGHT), HEIGHT - 12.0);
        let caption = escape(&self.x);
        writeln!(
            out,
            "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{caption}</text>"
        )?;
        let half = f64::midpoint(TOP, BOTTOM);
        writeln!(
            out,
            "<text transform=\"translate(16 {half}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&self.y)
        )?;
        for (index, line) in self.lines.iter().enumerate() {
            line.write(out, COLOURS[index % COLOURS.len()], index, (x, y))?;
        }
        writeln!(out, "</svg>")
    }
}

impl Line {
    fn write(
        &self,
        out: &mut String,
        colour: &str,
        index: usize,
        (x, y): (&Scale, &Scale),
    ) -> std::fmt::Result {
        let name = escape(&self.name);
        let row = TOP + 12.0 + 20.0 * index as f64;
        let (left, text) = (RIGHT + 20.0, RIGHT + 38.0);
        let high = row - 9.0;
        writeln!(
            out,
            "<rect x=\"{left}\" y=\"{high}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{text}\" y=\"{row}\">{name}</text>"
        )?;
        let places: Vec<String> = self
            .dots
            .iter()
            .map(|dot| format!("{:.1},{:.1}", x.place(dot.x), y.place(dot.y)))
            .collect();
        let places = places.join(" ");
        writeln!(
            out,
            "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        )?;
        for dot in &self.dots {
            let (at, up) = (x.place(dot.x), y.place(dot.y));
            if let Some((least, most)) = dot.range {
                let (low, high) = (y.place(least), y.place(most));
                writeln!(out, "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>")?;
            }
            let (dot_x, dot_y) = (number(dot.x), number(dot.y));
            writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{name}: \
                 {dot_y} at {dot_x}</title></circle>"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (4.0, "4"),
            (1234.5, "1234"),
            (69_000.0, "69 k"),
            (12_345_678.0, "12.3 M"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn charts_are_drawn_and_names_escaped() {
        let dot = |x, y| Dot { x, y, range: Some((y * 0.9, y * 1.1)) };
        let name = "<script>\"&'".to_owned();
        let lines = vec![Line { name, dots: vec![dot(1.0, 10.0), dot(4.0, 40.0)] }];
        let mut chart = Chart { x: "x".to_owned(), y: "y".to_owned(), log_x: true, lines };
        let svg = chart.svg().expect("there is something to draw");
        assert!(svg.contains("&lt;script&gt;&quot;&amp;&#39;") && !svg.contains("<script"));
        assert_eq!(svg.matches("<circle").count(), 2);
        // Points are within the frame.
        let place = |key: &str| -> Vec<f64> {
            let key = format!("{key}=\"");
            let values = svg.split(key.as_str()).skip(1);
            values.filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
        };
        assert!(place("cx").iter().all(|x| (LEFT..=RIGHT).contains(x)), "{svg}");
        assert!(place("cy").iter().all(|y| (TOP..=BOTTOM).contains(y)), "{svg}");
        chart.lines.clear();
        assert!(chart.svg().is_none());
    }
}

//! A line over virtual time for each metric, as SVG.

use std::fmt::Write as _;

use sim::{Sample, Summary};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that can be told apart by most eyes (Okabe and Ito, 2008).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// Draws the metrics with these names that the run has; nothing if it has none of them.
pub fn svg(title: &str, summary: &Summary, names: &[&str]) -> Option<String> {
    let lines: Vec<(&str, &[Sample])> = names
        .iter()
        .filter_map(|name| Some((*name, summary.metrics.get(*name)?.as_slice())))
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, samples)| samples.iter());
    let last_us = all().map(|sample| sample.time_us).max()?.max(1);
    let top = all().map(|sample| sample.value).fold(f64::MIN_POSITIVE, f64::max);
    let top = nice(top);
    let x = |us: u64| LEFT + (WIDTH - LEFT - RIGHT) * us as f64 / last_us as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value.max(0.0) / top);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (value, us) = (top * share, (last_us as f64 * share) as u64);
        write!(
            out,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{value:.2}</text>\n\
             <text x=\"{4:.1}\" y=\"{5}\" text-anchor=\"middle\">{6:.1}</text>\n",
            y(value),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0,
            x(us),
            HEIGHT - BOTTOM + 18.0,
            us as f64 / 1e6
        )
        .ok()?;
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    writeln!(
        out,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">virtual time, s</text>",
        HEIGHT - 12.0
    )
    .ok()?;
    for (number, (name, samples)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = samples
            .iter()
            .map(|sample| format!("{:.1},{:.1}", x(sample.time_us), y(sample.value)))
            .collect();
        write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <text x=\"{}\" y=\"32\" fill=\"{colour}\">{}</text>\n",
            points.join(" "),
            LEFT + 110.0 * number as f64,
            escape(name)
        )
        .ok()?;
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// The next of 1, 2, 5, 10 and so on at or above `value`.
fn nice(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * unit).find(|top| *top >= value).unwrap_or(value)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_metric_that_is_there() {
        let mut summary = Summary::default();
        let samples = |values: &[f64]| {
            let at = |(i, value): (usize, &f64)| Sample { time_us: i as u64 * 1000, value: *value };
            values.iter().enumerate().map(at).collect::<Vec<_>>()
        };
        summary.metrics.insert("accuracy".into(), samples(&[0.1, 0.9]));
        summary.metrics.insert("loss".into(), samples(&[2.3, 0.4]));
        let drawn = svg("a < b", &summary, &["accuracy", "loss", "other"]).unwrap();
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.contains("a &lt; b") && drawn.trim_end().ends_with("</svg>"));
        assert_eq!(svg("x", &summary, &["other"]), None);
        assert_eq!((nice(0.97), nice(2.3), nice(11.0)), (1.0, 5.0, 20.0));
    }
}

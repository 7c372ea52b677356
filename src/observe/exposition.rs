//! The text that Prometheus collects (text exposition format 0.0.4): each family once, with its help and its type, and
//! all its samples together, in whatever order they come.
//!
//! What is measured, and what it is called, is said by others. No two samples of a family may have the same labels.

use crate::sorted::SortedMap;
use std::fmt::{self, Display, Write};

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About<'a> {
    pub(crate) name: &'a str,
    pub(crate) help: &'a str,
    pub(crate) kind: Kind,
}

/// How the numbers of a family are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, until what counts begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something was how large.
    Histogram,
}

/// The text on its way.
#[derive(Debug, Default)]
pub(crate) struct Exposition(SortedMap<String, Family>);

#[derive(Debug)]
struct Family {
    help: String,
    kind: Kind,
    samples: String,
}

/// How often something took how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// The upper bound of each bucket as it is written, and how many were no longer.
    pub(crate) buckets: Vec<(&'static str, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: Seconds,
}

/// So many microseconds, written as seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u64);

/// Counters end in `_total`.
pub(crate) const fn counter<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About { name, help, kind: Kind::Counter }
}

pub(crate) const fn gauge<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About { name, help, kind: Kind::Gauge }
}

/// A label, to be joined with others by commas.
pub(crate) fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

impl Exposition {
    /// Adds a sample. `labels` are those of [`label`], and may be none.
    pub(crate) fn add(&mut self, about: About<'_>, labels: &str, value: impl Display) {
        self.write(about, |samples| write_sample(samples, about.name, "", labels, value));
    }

    /// Adds the samples of a histogram.
    pub(crate) fn add_distribution(&mut self, about: About<'_>, labels: &str, told: &Distribution) {
        self.write(about, |samples| {
            let all = std::iter::once(("+Inf", told.count));
            for (bound, count) in told.buckets.iter().copied().chain(all) {
                let comma = if labels.is_empty() { "" } else { "," };
                let labels = format!("{labels}{comma}{}", label("le", bound));
                write_sample(samples, about.name, "_bucket", &labels, count);
            }
            write_sample(samples, about.name, "_sum", labels, told.sum);
            write_sample(samples, about.name, "_count", labels, told.count);
        });
    }

    /// The families by their names.
    pub(crate) fn text(&self) -> String {
        let length = self.0.values().map(|family| family.samples.len() + 256).sum();
        let mut text = String::with_capacity(length);
        for (name, Family { help, kind, samples }) in self.0.iter() {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            text.push_str(samples);
        }
        text
    }

    /// Where the samples of a family go; what the first one said of it holds.
    fn write(&mut self, about: About<'_>, write: impl FnOnce(&mut String)) {
        match self.0.get_mut(about.name) {
            Some(family) => write(&mut family.samples),
            None => {
                let mut samples = String::new();
                write(&mut samples);
                let family = Family { help: about.help.to_owned(), kind: about.kind, samples };
                self.0.insert(about.name.to_owned(), family);
            }
        }
    }
}

fn write_sample(samples: &mut String, name: &str, suffix: &str, labels: &str, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = match labels {
        "" => writeln!(samples, "{name}{suffix} {value}"),
        _ => writeln!(samples, "{name}{suffix}{{{labels}}} {value}"),
    };
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A sample as whoever collects it reads it.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Parsed {
        pub(crate) name: String,
        pub(crate) labels: BTreeMap<String, String>,
        pub(crate) value: f64,
    }

    /// Reads the text as Prometheus does, and as strictly as `promtool check metrics`.
    pub(crate) fn parse(text: &str) -> Vec<Parsed> {
        let (mut parsed, mut seen) = (Vec::<Parsed>::new(), std::collections::BTreeSet::new());
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (family, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(is_name(family) && help.ends_with('.') && !help.contains('\\'), "{line}");
            assert!(seen.insert(family.to_owned()), "{family} is there twice");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            for unit in ["_us", "_ms", "_kb", "_mib", "_count"] {
                assert!(!family.ends_with(unit) || family.starts_with("mvm_firecracker"), "{family}");
            }
            let before = parsed.len();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let sample = parse_sample(line);
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                let own = suffixes.iter().any(|suffix| sample.name == format!("{family}{suffix}"));
                assert!(own, "{line} is not in {family}");
                assert!(
                    !parsed[before..]
                        .iter()
                        .any(|other| (&other.name, &other.labels) == (&sample.name, &sample.labels)),
                    "{line} is there twice"
                );
                assert!(kind != "counter" || sample.value >= 0.0, "{line}");
                parsed.push(sample);
            }
            assert!(parsed.len() > before, "{family} has no samples");
        }
        parsed
    }

    fn parse_sample(line: &str) -> Parsed {
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).unwrap());
        assert!(is_name(name), "{line}");
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").unwrap();
                assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                let (mut value, mut chars) = (String::new(), after.chars());
                loop {
                    match chars.next().unwrap() {
                        '"' => break,
                        '\\' => value.push(match chars.next().unwrap() {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            c => panic!("\\{c} in {line}"),
                        }),
                        c => value.push(c),
                    }
                }
                assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
                rest = chars.as_str();
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').unwrap();
        }
        let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
        Parsed { name: name.to_owned(), labels, value }
    }

    fn is_name(name: &str) -> bool {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    #[test]
    fn samples_of_a_family_stand_together_under_its_help_and_type() {
        let mut exposition = Exposition::default();
        exposition.add(gauge("b", "What b is."), &label("vm", "x\"\\\n"), 1);
        exposition.add(counter("a_total", "What a is."), "", Seconds(1_500_000));
        exposition.add(gauge("b", "What b is."), &label("vm", "y"), 2);
        let wanted = "\
# HELP a_total What a is.
# TYPE a_total counter
a_total 1.500000
# HELP b What b is.
# TYPE b gauge
b{vm=\"x\\\"\\\\\\n\"} 1
b{vm=\"y\"} 2
";
        assert_eq!(exposition.text(), wanted);
        assert_eq!(parse(wanted)[1].labels["vm"], "x\"\\\n");
        assert_eq!(Exposition::default().text(), "");
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut exposition = Exposition::default();
        let told = Distribution { buckets: vec![("0.1", 1), ("1", 3)], count: 4, sum: Seconds(2_000_000) };
        let about = About { name: "took_seconds", help: "How long.", kind: Kind::Histogram };
        exposition.add_distribution(about, &label("operation", "start"), &told);
        let text = exposition.text();
        assert!(text.ends_with(
            "\
took_seconds_bucket{operation=\"start\",le=\"0.1\"} 1
took_seconds_bucket{operation=\"start\",le=\"1\"} 3
took_seconds_bucket{operation=\"start\",le=\"+Inf\"} 4
took_seconds_sum{operation=\"start\"} 2.000000
took_seconds_count{operation=\"start\"} 4
"
        ));
        assert_eq!(parse(&text).len(), 5);
    }
}

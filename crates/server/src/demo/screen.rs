//! What the terminal shows: pure text from a view, at most as wide as it is told.

use std::time::Duration;

use super::history::State;

/// The widest the demo draws.
pub(crate) const WIDTH_MAX: usize = 80;
/// How many events a frame holds; the newest stay.
const EVENTS_SHOWN: usize = 12;
/// How many seconds a sparkline shows.
const SPARK_WIDTH: usize = 18;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One destination's line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) destination: &'static str,
    pub(crate) state: State,
    pub(crate) waiting: u64,
    pub(crate) leased: u64,
    pub(crate) completed: u64,
    /// Calls in each second so far, by the destination's own count.
    pub(crate) calls: Vec<u64>,
}

/// Something that happened, and when.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) text: String,
}

/// Everything a frame is drawn from.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) elapsed: Duration,
    pub(crate) total: u64,
    pub(crate) accepted: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) events: Vec<Event>,
}

/// How wide to draw, and whether in colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paper {
    pub(crate) width: usize,
    pub(crate) colour: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ink {
    Plain,
    Faint,
    Good,
    Bad,
    Between,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[1;31m",
            Self::Between => "\x1b[33m",
        }
    }
}

/// Draws one frame. Every frame of a view with as many rows has as many lines, so that the next
/// one covers it.
pub(crate) fn frame(view: &View, paper: Paper) -> String {
    let mut text = String::new();
    let seconds = view.elapsed.as_secs_f64();
    let (accepted, total) = (count(view.accepted), count(view.total));
    let head = format!("waystation demo  {seconds:5.1}s  accepted {accepted} of {total}");
    line(&mut text, paper, &[(Ink::Plain, head)]);
    line(&mut text, paper, &[]);
    let names = format!(
        "{:<12}{:<10}{:>8}{:>8}{:>10}  calls a second",
        "destination", "circuit", "waiting", "leased", "completed"
    );
    line(&mut text, paper, &[(Ink::Faint, names)]);
    for row in &view.rows {
        line(&mut text, paper, &parts(row));
    }
    line(&mut text, paper, &[]);
    let skipped = view.events.len().saturating_sub(EVENTS_SHOWN);
    let shown = view.events.iter().skip(skipped);
    let mut blank = EVENTS_SHOWN;
    for event in shown {
        line(&mut text, paper, &[(Ink::Plain, event_line(event))]);
        blank -= 1;
    }
    for _ in 0..blank {
        line(&mut text, paper, &[]);
    }
    text
}

/// Writes an event as a line of its own.
pub(crate) fn event_line(event: &Event) -> String {
    format!("{:5.1}s  {}", event.at.as_secs_f64(), event.text)
}

/// Writes where things stand as one line, for an output that is no terminal.
pub(crate) fn status_line(view: &View) -> String {
    let mut text = format!(
        "{:5.1}s  {} accepted;",
        view.elapsed.as_secs_f64(),
        count(view.accepted)
    );
    for row in &view.rows {
        let state = match row.state {
            State::Closed => String::new(),
            State::Open | State::HalfOpen | State::Ramping => format!(" {}", row.state.word()),
        };
        let (done, waiting) = (row.completed, row.waiting);
        text.push_str(&format!(" {}{state} {done}+{waiting}", row.destination));
    }
    cut(&text, WIDTH_MAX)
}

/// Writes a count with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Cuts a text to a number of characters.
pub(crate) fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

fn parts(row: &Row) -> Vec<(Ink, String)> {
    let ink = match row.state {
        State::Closed => Ink::Good,
        State::Open => Ink::Bad,
        State::HalfOpen | State::Ramping => Ink::Between,
    };
    let numbers = format!(
        "{:>8}{:>8}{:>10}",
        count(row.waiting),
        count(row.leased),
        count(row.completed)
    );
    let now = row.calls.last().copied().unwrap_or(0);
    vec![
        (Ink::Plain, format!("{:<12}", cut(row.destination, 11))),
        (ink, format!("{:<10}", row.state.word())),
        (Ink::Plain, format!("{numbers}  ")),
        (Ink::Faint, sparkline(&row.calls)),
        (Ink::Plain, format!(" {}", count(now))),
    ]
}

fn sparkline(calls: &[u64]) -> String {
    let skipped = calls.len().saturating_sub(SPARK_WIDTH);
    let shown = calls.iter().skip(skipped);
    let highest = shown.clone().max().copied().unwrap_or(0).max(1);
    let bar = |calls: &u64| match *calls {
        0 => ' ',
        calls => {
            let step = (calls * 8).div_ceil(highest).clamp(1, 8) - 1;
            usize::try_from(step)
                .ok()
                .and_then(|step| BARS.get(step))
                .copied()
                .unwrap_or('█')
        }
    };
    let bars: String = shown.map(bar).collect();
    format!("{bars:<SPARK_WIDTH$}")
}

fn line(text: &mut String, paper: Paper, parts: &[(Ink, String)]) {
    let mut left = paper.width;
    for (ink, part) in parts {
        let part = cut(part, left);
        left -= part.chars().count();
        let code = ink.code();
        if paper.colour && !code.is_empty() && !part.is_empty() {
            text.push_str(&format!("{code}{part}\x1b[0m"));
        } else {
            text.push_str(&part);
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paper = Paper {
        width: WIDTH_MAX,
        colour: false,
    };

    fn row(destination: &'static str, state: State, calls: &[u64]) -> Row {
        Row {
            destination,
            state,
            waiting: 2_310,
            leased: 32,
            completed: 1_402,
            calls: calls.to_vec(),
        }
    }

    fn view() -> View {
        View {
            elapsed: Duration::from_millis(12_340),
            total: 20_000,
            accepted: 14_300,
            rows: vec![
                row("smtp", State::Open, &[300, 310, 40, 0, 0]),
                row("sms", State::Closed, &[330, 331, 329, 333, 330]),
                row("billing", State::Ramping, &[]),
            ],
            events: vec![Event {
                at: Duration::from_millis(4_200),
                text: "circuit smtp opened after 5 failures".to_owned(),
            }],
        }
    }

    fn without_colour(text: &str) -> String {
        let mut plain = String::new();
        let mut inside = false;
        for letter in text.chars() {
            match (inside, letter) {
                (false, '\x1b') => inside = true,
                (true, 'm') => inside = false,
                (true, _) => {}
                (false, letter) => plain.push(letter),
            }
        }
        plain
    }

    #[test]
    fn a_frame_shows_destinations_circuits_counts_calls_and_events() {
        let drawn = frame(&view(), PLAIN);
        let drawn: Vec<&str> = drawn.lines().map(str::trim_end).collect();
        let expected = [
            "waystation demo   12.3s  accepted 14,300 of 20,000",
            "",
            "destination circuit    waiting  leased completed  calls a second",
            "smtp        open         2,310      32     1,402  ██▂                0",
            "sms         closed       2,310      32     1,402  █████              330",
            "billing     ramping      2,310      32     1,402                     0",
            "",
            "  4.2s  circuit smtp opened after 5 failures",
        ];
        assert_eq!(drawn[..expected.len()], expected);
    }

    #[test]
    fn no_line_is_wider_than_the_paper_whatever_the_view_holds() {
        let mut wide = view();
        wide.accepted = u64::MAX;
        wide.total = u64::MAX;
        wide.rows.push(Row {
            destination: "a-destination-with-a-very-long-name-indeed",
            state: State::HalfOpen,
            waiting: u64::MAX,
            leased: u64::MAX,
            completed: u64::MAX,
            calls: vec![u64::MAX / 8; 100],
        });
        for number in 0..40 {
            wide.events.push(Event {
                at: Duration::from_secs(number),
                text: "é".repeat(200),
            });
        }
        for width in [20, 40, 79, WIDTH_MAX] {
            for colour in [false, true] {
                let drawn = without_colour(&frame(&wide, Paper { width, colour }));
                let widest = drawn.lines().map(|line| line.chars().count()).max();
                assert!(widest <= Some(width), "{widest:?} > {width}");
            }
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let colour = Paper {
            colour: true,
            ..PLAIN
        };
        let coloured = frame(&view(), colour);
        assert!(coloured.contains("\x1b[1;31mopen"), "{coloured}");
        assert_eq!(without_colour(&coloured), frame(&view(), PLAIN));
        assert!(!frame(&view(), PLAIN).contains('\x1b'));
    }

    #[test]
    fn every_frame_has_as_many_lines_and_shows_the_newest_events() {
        let mut later = view();
        let before = frame(&later, PLAIN).lines().count();
        for number in 0..30 {
            later.events.push(Event {
                at: Duration::from_secs(number),
                text: format!("event {number}"),
            });
        }
        let drawn = frame(&later, PLAIN);
        assert_eq!(drawn.lines().count(), before);
        assert!(drawn.contains("event 29") && !drawn.contains("event 1\n"));
    }

    #[test]
    fn the_status_line_of_a_plain_output_fits_a_terminal() {
        let mut view = view();
        view.rows[2].state = State::Closed;
        let line = status_line(&view);
        assert_eq!(
            line,
            " 12.3s  14,300 accepted; smtp open 1402+2310 sms 1402+2310 billing 1402+2310"
        );
        view.accepted = u64::MAX;
        view.rows[0].waiting = u64::MAX;
        assert_eq!(status_line(&view).chars().count(), WIDTH_MAX);
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (20_000, "20,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), expected);
        }
    }
}

//! Puts views on the output: redrawn in place on a terminal, as plain lines elsewhere.

use std::io::Write;
use std::time::Duration;

use super::screen::{Paper, View, event_line, frame, status_line};

/// How often a plain output gets a line about where things stand.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// The output.
pub(crate) struct Terminal {
    out: Box<dyn Write + Send>,
    paper: Option<Paper>,
    lines: usize,
    events: usize,
    status_at: Option<Duration>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Terminal");
        text.field("paper", &self.paper).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Draws on paper, or writes plain lines where there is none.
    pub(crate) fn new(out: Box<dyn Write + Send>, paper: Option<Paper>) -> Self {
        Self {
            out,
            paper,
            lines: 0,
            events: 0,
            status_at: None,
        }
    }

    /// Writes a line below what is there.
    pub(crate) fn say(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
        self.lines = 0;
    }

    /// Shows a view; the last one of a tour always shows where things stand.
    pub(crate) fn draw(&mut self, view: &View, last: bool) {
        let text = match self.paper {
            Some(paper) => self.redraw(&frame(view, paper)),
            None => self.append(view, last),
        };
        self.write(&text);
    }

    fn redraw(&mut self, frame: &str) -> String {
        let mut text = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A"),
        };
        for line in frame.lines() {
            text.push_str(&format!("{line}\x1b[K\n"));
        }
        self.lines = frame.lines().count();
        text
    }

    fn append(&mut self, view: &View, last: bool) -> String {
        let mut text = String::new();
        for event in view.events.iter().skip(self.events) {
            text.push_str(&format!("{}\n", event_line(event)));
        }
        self.events = view.events.len();
        let due = self
            .status_at
            .is_none_or(|at| view.elapsed >= at + STATUS_EVERY);
        if due || last {
            self.status_at = Some(view.elapsed);
            text.push_str(&format!("{}\n", status_line(view)));
        }
        text
    }

    fn write(&mut self, text: &str) {
        // A reader that has gone is no reason to stop: the exit code still tells the verdict.
        let written = self.out.write_all(text.as_bytes());
        drop(written.and_then(|()| self.out.flush()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::screen::Event;
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            let bytes = self.0.lock().expect("nobody panicked").clone();
            String::from_utf8(bytes).expect("it is text")
        }
    }

    fn view(seconds: u64, events: usize) -> View {
        let event = |number| Event {
            at: Duration::from_secs(seconds),
            text: format!("event {number}"),
        };
        View {
            elapsed: Duration::from_secs(seconds),
            events: (0..events).map(event).collect(),
            ..View::default()
        }
    }

    #[test]
    fn a_plain_output_gets_each_event_once_and_no_control_characters() {
        let kept = Kept::default();
        let mut terminal = Terminal::new(Box::new(kept.clone()), None);
        for (seconds, events) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
            terminal.draw(&view(seconds, events), false);
        }
        let text = kept.text();
        assert_eq!(text.matches("event 0").count(), 1, "{text}");
        assert_eq!(text.matches("event 1").count(), 1, "{text}");
        assert_eq!(text.matches("accepted").count(), 2, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_terminal_is_redrawn_in_place_over_as_many_lines_as_were_drawn() {
        let kept = Kept::default();
        let paper = Paper {
            width: 80,
            colour: false,
        };
        let mut terminal = Terminal::new(Box::new(kept.clone()), Some(paper));
        terminal.draw(&view(0, 0), false);
        let lines = kept.text().lines().count();
        assert!(!kept.text().contains('A'), "{}", kept.text());
        terminal.draw(&view(1, 1), false);
        assert!(
            kept.text().contains(&format!("\x1b[{lines}A")),
            "{}",
            kept.text()
        );
    }
}

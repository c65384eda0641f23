//! Printing: numbered steps, aligned, and a mark for every check.

use std::io::IsTerminal;

/// Where the text of steps and checks begins.
const LABEL_WIDTH: usize = 7;

/// What is printed, and whether every check held so far.
pub(crate) struct Screen {
    colours: bool,
    steps: usize,
    failed: usize,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { colours: wanted && std::io::stdout().is_terminal(), steps: 0, failed: 0 }
    }

    pub(crate) fn title(&self, text: &str) {
        println!("{}", self.paint("1", text));
    }

    /// Begins a step: a number, a word, a line.
    pub(crate) fn step(&mut self, word: &str, text: &str) {
        self.steps += 1;
        let word = self.paint("1", &format!("{word:LABEL_WIDTH$}"));
        println!("\n {}  {word} {text}", self.steps);
    }

    /// A line more about the same step.
    pub(crate) fn more(&self, text: &str) {
        println!("    {:LABEL_WIDTH$} {}", "", self.paint("2", text));
    }

    /// A check.
    pub(crate) fn check(&mut self, held: bool, text: &str) {
        self.failed += usize::from(!held);
        let mark = if held { self.paint("32", "✓") } else { self.paint("31;1", "✗ FAILED:") };
        println!("    {:LABEL_WIDTH$} {mark} {text}", "");
    }

    pub(crate) fn end(&self, text: &str) {
        println!("\n{}", self.paint(if self.all_held() { "32;1" } else { "31;1" }, text));
    }

    pub(crate) fn all_held(&self) -> bool {
        self.failed == 0
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

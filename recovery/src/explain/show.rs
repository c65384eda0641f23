//! An explanation in a terminal: the bytes with their fields marked, and what is known of them.
//!
//! It owns the layout. Each field has a letter, below its bytes and beside its name, and a colour
//! where colours are allowed, so that both say the same.

use std::io;

use anstyle::{AnsiColor, Style};

use super::explained::{Explained, Field, Piece};
use crate::finding::Severity;
use crate::output::{self, BAD, FAINT, GOOD, ODD, Output, STRONG, styled};

const COLOURS: [AnsiColor; 5] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Magenta, AnsiColor::Green, AnsiColor::Blue];
const ROW: u64 = 16;

fn colour(field: usize) -> Style {
    COLOURS.get(field % COLOURS.len()).map_or(STRONG, |colour| colour.on_default())
}

fn letter(field: usize) -> char {
    u8::try_from(field % 26).map_or('*', |number| char::from(b'a' + number))
}

pub(super) fn show(told: &Explained, output: &mut Output) -> io::Result<()> {
    let style = match told.valid {
        Some(true) => GOOD,
        Some(false) => BAD,
        None => STRONG,
    };
    output.line(styled(style, output::capital(&told.title)))?;
    if let Some(file) = &told.file {
        let place = match &told.bytes {
            Some(bytes) => {
                let size = output::bytes(bytes.end.saturating_sub(bytes.start));
                format!("{file}, bytes {}..{} ({size})", bytes.start, bytes.end)
            }
            None => file.clone(),
        };
        output.line(styled(FAINT, place))?;
    }
    if told.shown.iter().any(|piece| !piece.bytes.is_empty()) {
        output.line("")?;
        dump(told, output)?;
    }
    if !told.fields.is_empty() {
        output.line("")?;
        fields(&told.fields, output)?;
    }
    if !told.reasons.is_empty() {
        output.line("")?;
        for reason in &told.reasons {
            let sign = match reason.holds {
                Some(true) => styled(GOOD, "ok "),
                Some(false) => styled(BAD, "NO "),
                None => styled(FAINT, " ? "),
            };
            output.line(format_args!("  {sign}  {}", reason.what))?;
        }
    }
    if !told.facts.is_empty() {
        output.line("")?;
        let width = told.facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
        for fact in &told.facts {
            let name = styled(FAINT, format!("{:<width$}", fact.name));
            output.line(format_args!("  {name}  {}", fact.what))?;
        }
    }
    output.line("")?;
    if told.findings.is_empty() {
        output.line("check   has nothing to say about it")?;
    }
    for finding in &told.findings {
        let style = match finding.code.severity() {
            Severity::Damage => BAD,
            Severity::Warning => ODD,
            Severity::Note => STRONG,
        };
        let records = finding.offsets.as_ref().map(|offsets| format!("{}: ", output::records(offsets)));
        let what = format!("{}{}", records.unwrap_or_default(), finding.what);
        output.line(format_args!("check   {}  {what}", styled(style, finding.code.text())))?;
        if let Some(proof) = &finding.proof {
            output.line(format_args!("        {proof}"))?;
        }
    }
    output.line(format_args!("next    {}", told.next))
}

fn field_at(fields: &[Field], position: u64) -> Option<usize> {
    fields.iter().position(|field| field.start <= position && position < field.end)
}

fn dump(told: &Explained, output: &mut Output) -> io::Result<()> {
    let mut before: Option<u64> = None;
    for piece in &told.shown {
        if let Some(left_out) = before.and_then(|end| piece.start.checked_sub(end)).filter(|count| *count > 0)
        {
            output.line(styled(
                FAINT,
                format!("          ... {} not shown ...", output::count(left_out, "byte")),
            ))?;
        }
        rows(piece, &told.fields, output)?;
        before = Some(piece.start.saturating_add(piece.bytes.len() as u64));
    }
    Ok(())
}

fn rows(piece: &Piece, fields: &[Field], output: &mut Output) -> io::Result<()> {
    let end = piece.start.saturating_add(piece.bytes.len() as u64);
    let mut row = piece.start - piece.start % ROW;
    while row < end {
        let (mut hex, mut text, mut marks, mut begins) = (String::new(), String::new(), String::new(), false);
        for column in 0..ROW {
            let at = row.saturating_add(column);
            if column == ROW / 2 {
                hex.push(' ');
                marks.push(' ');
            }
            let byte = at.checked_sub(piece.start).and_then(|place| usize::try_from(place).ok());
            let Some(byte) = byte.and_then(|place| piece.bytes.get(place)) else {
                hex.push_str("   ");
                text.push(' ');
                marks.push_str("   ");
                continue;
            };
            let shown = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
            let Some((number, field)) = field_at(fields, at).and_then(|n| Some((n, fields.get(n)?))) else {
                hex.push_str(&format!("{byte:02x} "));
                text.push(shown);
                marks.push_str("   ");
                continue;
            };
            let style = colour(number);
            // Between two bytes of one field the colour goes on.
            let goes_on = at.saturating_add(1) < field.end && column != ROW / 2 - 1;
            hex.push_str(&styled(style, format!("{byte:02x}")));
            hex.push(' ');
            text.push_str(&styled(style, shown));
            begins |= at == field.start;
            let dash = if goes_on && column + 1 < ROW { '-' } else { ' ' };
            let first = at == field.start || at == piece.start || column == 0;
            let mark = if first {
                format!("{}{}", letter(number), if field.end == at + 1 { ' ' } else { '-' })
            } else {
                "--".to_string()
            };
            if dash == '-' {
                marks.push_str(&styled(style, format!("{mark}{dash}")));
            } else {
                marks.push_str(&format!("{} ", styled(style, mark.trim_end())));
                marks.push_str(if mark.ends_with(' ') { " " } else { "" });
            }
        }
        output.line(format_args!("{row:08x}  {hex} |{text}|"))?;
        if begins {
            output.line(format!("          {marks}").trim_end())?;
        }
        row = row.saturating_add(ROW);
    }
    Ok(())
}

fn fields(fields: &[Field], output: &mut Output) -> io::Result<()> {
    let name = fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    let value = fields.iter().map(|field| field.value.chars().count()).max().unwrap_or(0).min(24);
    for (number, field) in fields.iter().enumerate() {
        let sign = styled(colour(number), letter(number));
        let text = format!("{:<name$}  {:<value$}  {}", field.name, field.value, field.note);
        output.line(format_args!("  {sign}  {:>8}  {}", field.start, text.trim_end()))?;
    }
    Ok(())
}

//! A terminal without a person: runs a program on a pty of a given size, and says what stands on the
//! screen and above it when the program has ended.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::pty::{Winsize, openpty};

/// What a program wrote on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Every line that stands at the end, those above the screen first, without colours.
    pub lines: Vec<String>,
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
}

/// Runs the command on a terminal of that size.
///
/// # Errors
/// When there is no pty, or the program cannot be started.
pub fn run(mut command: Command, columns: u16, rows: u16) -> anyhow::Result<Shown> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).context("could not open a pty")?;
    let end = |fd: &OwnedFd| fd.try_clone().map(Stdio::from).context("could not share the pty");
    command.stdin(end(&pty.slave)?).stdout(end(&pty.slave)?).stderr(end(&pty.slave)?);
    let mut child = command.env("TERM", "xterm-256color").spawn().context("could not start it")?;
    // The program's own ends are the last: when it is gone, the pty says so.
    drop(command);
    drop(pty.slave);
    let mut master = std::fs::File::from(pty.master);
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // Linux ends a pty whose other side is closed with EIO.
    while let Ok(read @ 1..) = master.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    let status = child.wait().context("could not wait for it")?;
    let text = String::from_utf8_lossy(&bytes);
    let mut screen = Screen::new(columns.into(), rows.into());
    screen.feed(&text)?;
    Ok(Shown { lines: screen.lines(), code: status.code().unwrap_or(-1) })
}

/// A screen with what has scrolled out of it. It knows what `control` uses: colours, moves, erasing.
struct Screen {
    columns: usize,
    rows: usize,
    /// All lines, the screen's at the end.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, lines: vec![Vec::new()], row: 0, column: 0 }
    }

    /// The first line that is still on the screen: no move leads above it.
    fn top(&self) -> usize {
        self.lines.len().saturating_sub(self.rows)
    }

    fn feed(&mut self, text: &str) -> anyhow::Result<()> {
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            match char {
                '\n' => self.down(),
                '\r' => self.column = 0,
                '\u{1b}' => {
                    ensure!(rest.next() == Some('['), "an escape that is no CSI");
                    let mut number = String::new();
                    let last = loop {
                        match rest.next().context("an escape without an end")? {
                            end @ '@'..='~' => break end,
                            inner => number.push(inner),
                        }
                    };
                    self.control(last, &number)?;
                }
                other => self.put(other),
            }
        }
        Ok(())
    }

    fn control(&mut self, last: char, parameter: &str) -> anyhow::Result<()> {
        let number: usize = parameter.parse().unwrap_or(1);
        match (last, parameter) {
            // Colours, and whether the cursor is drawn.
            ('m', _) | ('h' | 'l', "?25") => {}
            ('A', _) => self.row = self.row.saturating_sub(number).max(self.top()),
            ('B', _) => self.row = (self.row + number).min(self.lines.len() - 1),
            ('C', _) => self.column += number,
            ('D', _) => self.column = self.column.saturating_sub(number),
            ('K', "2") => self.lines[self.row].clear(),
            ('K', _) => self.lines[self.row].truncate(self.column),
            ('J', _) => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            _ => anyhow::bail!("an escape that is not known: {parameter}{last}"),
        }
        Ok(())
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, char: char) {
        if self.column == self.columns {
            // The terminal breaks a line that is too long for it, within a word if need be.
            self.down();
            self.column = 0;
        }
        let line = &mut self.lines[self.row];
        while line.len() <= self.column {
            line.push(' ');
        }
        line[self.column] = char;
        self.column += 1;
    }

    fn lines(&self) -> Vec<String> {
        let text = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
        let mut lines: Vec<String> = self.lines.iter().map(text).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(text: &str) -> Vec<String> {
        let mut screen = Screen::new(10, 3);
        screen.feed(text).unwrap();
        screen.lines()
    }

    #[test]
    fn what_was_drawn_over_is_gone_and_what_has_scrolled_out_stays() {
        assert_eq!(screen("one\r\n\u{1b}[32mtwo\u{1b}[0m\r\n"), ["one", "two"]);
        assert_eq!(screen("bar 1\rbar 2"), ["bar 2"]);
        assert_eq!(screen("a\r\nspin\u{1b}[2K\rdone"), ["a", "done"]);
        assert_eq!(screen("a\r\nb\r\nc\u{1b}[9A\rx"), ["x", "b", "c"]);
        // Above the screen nothing is changed any more.
        assert_eq!(screen("a\r\nb\r\nc\r\nd\u{1b}[9A\rx"), ["a", "x", "c", "d"]);
        assert_eq!(screen("0123456789ab"), ["0123456789", "ab"]);
    }

    #[test]
    fn a_program_sees_the_size_of_its_terminal() {
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; test -t 2 && echo terminal; exit 3"]);
        let shown = run(command, 80, 24).unwrap();
        assert_eq!(shown, Shown { lines: vec!["24 80".into(), "terminal".into()], code: 3 });
    }
}

//! What people see while a walk over the layers is under way: bars on a terminal, plain lines
//! elsewhere. All of it goes to stderr.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::Format;
use crate::output::events::{self, Event};
use crate::output::text::wrap;
use crate::output::{Printer, Style};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);
/// Node lines drawn at a time; a screen has few more, and a pool may have hundreds of nodes.
const NODES_DRAWN: usize = 16;
/// Width of a layer's name on every line.
const LAYER_WIDTH: usize = 9;
/// The columns that a screen is made for.
const WIDTH: usize = 80;
/// What the time at a layer's end takes: two blanks, `1234.5 s`.
const TOOK: usize = 10;
/// Where the text of a layer's line begins: mark, name, a blank each.
const LAYER_INDENT: usize = LAYER_WIDTH + 3;
/// Where the text of a node's line begins: margin, mark, place, instance.
const NODE_INDENT: usize = 38;

/// One node's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// `pool/index`.
    pub at: String,
    /// Instance id.
    pub instance: String,
    /// Where it is on its way, or why it is not.
    pub text: String,
    /// The verdict in a word, `Ready` or the reason: a log gets a line when it changes.
    pub word: String,
    /// How it stands.
    pub mark: Mark,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Under way.
    Waiting,
    /// Good.
    Good,
    /// Good enough, with something to report.
    Fair,
    /// Bad.
    Bad,
}

impl Mark {
    /// The sign in front of a line.
    #[must_use]
    pub fn paint(self, style: Style) -> String {
        match self {
            Self::Waiting => style.dim("…"),
            Self::Good => style.green("✓"),
            Self::Fair => style.yellow("!"),
            Self::Bad => style.red("✗"),
        }
    }
}

/// The screen of one walk. Cheap to clone; clones share the screen.
#[derive(Clone)]
pub struct Progress {
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    style: Style,
    /// None where nothing is drawn: plain lines instead.
    bars: Option<MultiProgress>,
    silent: bool,
    /// Whether a line was written since the screen was cleared.
    wrote: bool,
    /// Lines of JSON in place of all else.
    events: bool,
    part: Option<(&'static str, Instant)>,
    layer_bar: Option<ProgressBar>,
    nodes: BTreeMap<String, (NodeLine, Option<ProgressBar>)>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// A screen on stderr; `draw` where it is a terminal.
    #[must_use]
    pub fn new(style: Style, draw: bool) -> Self {
        Self::of(style, draw.then(MultiProgress::new), false)
    }

    /// The screen of a verb that prints in this form: lines of JSON on stdout, or what a person sees.
    #[must_use]
    pub fn of_verb(printer: &Printer, format: Format) -> Self {
        let progress = match format {
            Format::Jsonl => Self::silent(),
            Format::Table | Format::Json | Format::Yaml => {
                Self::new(printer.note_style(), printer.draws_progress())
            }
        };
        progress.with(|screen| screen.events = format == Format::Jsonl);
        progress
    }

    /// No screen, for commands that only read.
    #[must_use]
    pub fn silent() -> Self {
        Self::of(Style::PLAIN, None, true)
    }

    fn of(style: Style, bars: Option<MultiProgress>, silent: bool) -> Self {
        let nodes = BTreeMap::new();
        let screen = Screen {
            style,
            bars,
            silent,
            events: false,
            wrote: false,
            part: None,
            layer_bar: None,
            nodes,
        };
        Self { screen: Arc::new(Mutex::new(screen)) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Screen) -> T) -> T {
        act(&mut self.screen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A layer begins, or another part of a walk.
    pub fn begin(&self, part: &'static str) {
        self.with(|screen| screen.begin(part));
    }

    /// Its plan has this many steps.
    pub fn steps(&self, count: usize) {
        self.with(|screen| {
            if let Some(bar) = &screen.layer_bar {
                bar.set_length(count.try_into().unwrap_or(u64::MAX));
                bar.set_style(template(
                    "{spinner:.cyan} {prefix} {bar:24.cyan/dim} {pos}/{len} {msg:.dim}",
                ));
            }
        });
    }

    /// A step has ended, well or not.
    pub fn step(&self, resource: &str, name: &str, ok: bool) {
        self.with(|screen| {
            screen.event(|part| Event::Step { part, resource, name, ok });
            if let Some(bar) = &screen.layer_bar {
                bar.inc(1);
                bar.set_message(format!("{resource} {name}"));
            }
        });
    }

    /// The layer's steps are done; its gate is asked.
    pub fn gate(&self, text: &str) {
        self.with(|screen| {
            screen.event(|part| Event::Gate { part, proves: text });
            if let Some(bar) = &screen.layer_bar {
                bar.set_style(template("{spinner:.cyan} {prefix} {msg:.dim}"));
                bar.set_message(format!("proving: {text}"));
            }
        });
    }

    /// The nodes of the layer as they stand now. Without a terminal only changes make a line.
    pub fn nodes(&self, lines: &[NodeLine]) {
        self.with(|screen| screen.nodes(lines));
    }

    /// There was nothing to do in this part, and nothing to say of it.
    pub fn pass(&self) {
        self.with(|screen| {
            screen.part = None;
            if let Some(bar) = screen.layer_bar.take() {
                bar.finish_and_clear();
            }
        });
    }

    /// The layer has ended so.
    pub fn end(&self, mark: Mark, text: &str) {
        self.with(|screen| screen.end(mark, text));
    }

    /// Takes the bars off the screen, so that an error or a summary stands alone.
    pub fn clear(&self) {
        self.with(|screen| {
            if let Some(bars) = &screen.bars {
                let _ = bars.clear();
                // The cursor stands behind the last line: what comes next would be glued to it.
                if std::mem::take(&mut screen.wrote) {
                    use std::io::Write as _;
                    let _ = writeln!(std::io::stderr());
                }
            }
        });
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

impl Mark {
    /// How a node stands, as lines of JSON say it.
    const fn node(self) -> &'static str {
        match self {
            Self::Waiting => "joining",
            Self::Good => "ready",
            Self::Fair => "degraded",
            Self::Bad => "failed",
        }
    }

    /// How a part ended, as lines of JSON say it.
    const fn end(self) -> &'static str {
        match self {
            Self::Waiting | Self::Good => "ok",
            Self::Fair => "degraded",
            Self::Bad => "failed",
        }
    }
}

impl Screen {
    /// A line of JSON about the part that is under way.
    fn event<'a>(&self, event: impl FnOnce(&'static str) -> Event<'a>) {
        if self.events {
            events::emit(&event(self.part.map_or("", |(part, _)| part)));
        }
    }

    fn line(&mut self, text: &str) {
        self.wrote = true;
        match (&self.bars, self.silent) {
            (_, true) => {}
            // Above the bars, which stay at the bottom.
            (Some(bars), false) => drop(bars.println(text)),
            (None, false) => {
                use std::io::Write as _;
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn begin(&mut self, part: &'static str) {
        self.part = Some((part, Instant::now()));
        self.event(|part| Event::PartStart { part });
        if let Some(bars) = &self.bars {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(template("{spinner:.cyan} {prefix} {msg:.dim}"));
            bar.set_prefix(format!("{part:LAYER_WIDTH$}"));
            bar.set_message("looking");
            bar.enable_steady_tick(TICK);
            self.layer_bar = Some(bar);
        }
    }

    fn nodes(&mut self, lines: &[NodeLine]) {
        for line in lines {
            let before = self.nodes.get(&line.instance);
            if before.is_some_and(|(known, _)| known == line) {
                continue;
            }
            let state = line.mark.node();
            let NodeLine { at, instance, text, word, .. } = line;
            self.event(|_| Event::Node { at, instance, state, reason: word, text });
            let text = self.node_text(line);
            // A node that goes through eight phases in two seconds would fill a log.
            let news = line.mark != Mark::Waiting
                && before
                    .is_none_or(|(known, _)| (known.mark, &known.word) != (line.mark, &line.word));
            let known = self.nodes.remove(&line.instance).and_then(|(_, bar)| bar);
            if self.bars.is_none() && news {
                self.line(&text);
            }
            let bar = self.draw(line, known);
            self.nodes.insert(line.instance.clone(), (line.clone(), bar));
        }
    }

    /// The node's line at the bottom of the screen. Where there are more nodes than lines, those
    /// that are ready make place for those that are not.
    fn draw(&self, line: &NodeLine, known: Option<ProgressBar>) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        let drawn = self.nodes.values().filter(|(_, bar)| bar.is_some()).count();
        let crowded = self.nodes.len() >= NODES_DRAWN;
        let bar = match known {
            Some(bar) if crowded && line.mark == Mark::Good => {
                bar.finish_and_clear();
                return None;
            }
            Some(bar) => bar,
            None if drawn >= NODES_DRAWN => return None,
            None => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.enable_steady_tick(TICK);
                bar
            }
        };
        if line.mark == Mark::Waiting {
            bar.set_style(template("    {spinner:.dim} {wide_msg}"));
            bar.set_message(self.node_words(line));
        } else {
            bar.set_style(template("{wide_msg}"));
            bar.set_message(self.node_text(line));
        }
        Some(bar)
    }

    fn node_words(&self, line: &NodeLine) -> String {
        format!("{:10} {}  {}", line.at, self.style.dim(&line.instance), line.text)
    }

    fn node_text(&self, line: &NodeLine) -> String {
        let mark = line.mark.paint(self.style);
        format!("    {mark} {}", self.node_words(line))
    }

    fn end(&mut self, mark: Mark, text: &str) {
        if let Some(bar) = self.layer_bar.take() {
            bar.finish_and_clear();
        }
        let mut nodes: Vec<_> = std::mem::take(&mut self.nodes).into_values().collect();
        nodes.sort_by(|(a, _), (b, _)| a.at.cmp(&b.at));
        let many = nodes.len() > NODES_DRAWN;
        for (line, bar) in nodes {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            // Without bars every verdict has had its line already.
            let said = line.mark == Mark::Waiting || (many && line.mark == Mark::Good);
            if self.bars.is_some() && !said {
                self.line(&self.node_text(&self.folded(line)));
            }
        }
        let Some((part, began)) = self.part else { return };
        let seconds = began.elapsed().as_secs_f64();
        self.event(|part| Event::PartEnd { part, state: mark.end(), text, seconds });
        self.part = None;
        let name = self.style.bold(format!("{part:LAYER_WIDTH$}"));
        let took = self.style.dim(format!("{seconds:.1} s"));
        // A log is read a line at a time; on a terminal lines are as long as a screen is wide.
        let text = match self.bars {
            Some(_) => wrap(text, LAYER_INDENT, WIDTH - TOOK).trim_start().to_owned(),
            None => text.to_owned(),
        };
        self.line(&format!("{} {name} {text}  {took}", mark.paint(self.style)));
    }

    /// A node's line, broken where a screen ends.
    fn folded(&self, line: NodeLine) -> NodeLine {
        let text = wrap(&line.text, NODE_INDENT, WIDTH).trim_start().to_owned();
        NodeLine { text, ..line }
    }
}

"""What a terminal shows: tables, and a bar; a file or a pipe gets plain lines."""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from fastcv.notebook import NotebookBar, in_notebook

BAR_WIDTH = 24  # characters
REDRAW_SECONDS = 0.1
LINE_SECONDS = 60.0  # without a line, until a file or a pipe gets one of how much is done
ERASE = "\r\x1b[2K"  # back to the start of the line, and clear it

Chunk = TypeVar("Chunk")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool) -> None:
    """Print a table as wide as the terminal.

    With `wrap`, a last cell that is too long goes on in the next line; else it is cut.
    """
    console = Console(highlight=False, markup=False)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)][:-1]
    widths.append(max(console.width - sum(widths) - 2 * len(widths), len(columns[-1])))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, no_wrap=not wrap, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    console.print(table)


class Bar:
    """The last line of a terminal, which shows how much of a task is done.

    It has no thread and does not hide the cursor, so that an exception leaves the terminal as it
    was. Where `stream` is no terminal, lines are written, one after each minute without one.

    Args:
        stream: where to write.
        silent: write nothing but what `line` is given.
    """

    def __init__(self, stream: TextIO, *, silent: bool = False):
        self.stream = stream
        self._shown = False
        terminal = stream.isatty()
        self._console = Console(
            file=stream, force_terminal=terminal, force_jupyter=False, highlight=False, markup=False
        )
        self.live = terminal and not self._console.is_dumb_terminal and not silent
        self._every = math.inf if silent else REDRAW_SECONDS if self.live else LINE_SECONDS
        self._written = 0.0 if self.live else time.perf_counter()

    @property
    def due(self) -> bool:
        """Whether nothing was drawn or written just now; ask before making the text."""
        return time.perf_counter() - self._written >= self._every

    @property
    def width(self) -> int | None:
        """Characters in a line of the terminal; None where lines may have any length."""
        return self._console.width if self.live else None

    def wait(self) -> None:
        """Begin a task; one that is over at once shows no bar."""
        self._written = time.perf_counter()

    def draw(self, text: str, done: float | None = None) -> None:
        """Redraw when `due`: a text, and a bar filled to the fraction `done` if that is known."""
        if not self.live:
            self.line(text)
            return
        self._written, self._shown = time.perf_counter(), True
        room = self._console.width - len(text) - 2
        with self._console as console:  # collects, and writes once
            self.stream.write(ERASE)
            console.print(text, end="" if done is None else " ", no_wrap=True, crop=True)
            if done is not None and room > 0:
                look = {"complete_style": "green", "finished_style": "green"}
                width = min(BAR_WIDTH, room)
                bar = ProgressBar(total=1, completed=done, width=width, **look)
                console.print(bar, end="")
        self.stream.flush()

    def erase(self) -> None:
        """Clear the line, if something was drawn in it."""
        if self._shown:
            self._shown = False
            self.stream.write(ERASE)
            self.stream.flush()

    def line(self, text: str) -> None:
        """Write a line in place of the bar."""
        self._shown = False
        if not self.live:
            self._written = time.perf_counter()
        self.stream.write(f"{ERASE if self.live else ''}{text}\n")
        self.stream.flush()


def make_bar(stream: TextIO | None = None) -> Bar | NotebookBar:
    """Return a bar for what shows standard output, or `stream`: notebook, terminal or file."""
    return NotebookBar() if in_notebook() else Bar(stream or sys.stdout)


@contextmanager
def doing(what: str, bar: Bar | NotebookBar) -> Iterator[None]:
    """Show what takes a while, as long as it does; a file gets a line instead."""
    if bar.live:
        bar.draw(what)
    else:
        bar.line(what)
    try:
        yield
    finally:
        bar.erase()


def with_bar(
    chunks: Iterable[Chunk], size: int, total: int, what: str, *, line: bool = True
) -> Iterator[Chunk]:
    """Pass chunks on, with a bar on stderr where that is a terminal, or in a notebook.

    Args:
        chunks: of some images each.
        size: images of a chunk.
        total: images of all chunks.
        what: the task; it starts the line.
        line: whether to write a line with the seconds at the end.
    """
    bar, started = make_bar(sys.stderr), time.perf_counter()
    try:
        for number, chunk in enumerate(chunks, start=1):
            yield chunk
            if bar.due:
                done = min(number * size, total)
                bar.draw(f"{what} {done:,}/{total:,} images", done / total)
    finally:
        bar.erase()
    if line:
        bar.line(f"{what}: {total:,} images, {time.perf_counter() - started:.1f} s")

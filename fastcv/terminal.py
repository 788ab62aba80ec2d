"""What a terminal shows: tables, and a bar; a file or a pipe gets plain lines."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

BAR_WIDTH = 24  # characters
REDRAW_SECONDS = 0.1
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
    was. Where `stream` is no terminal, only lines are written.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self._drawn = 0.0
        terminal = stream.isatty()
        # A notebook's output is no terminal: it gets plain lines.
        self._console = Console(
            file=stream, force_terminal=terminal, force_jupyter=False, highlight=False, markup=False
        )
        self.live = terminal and not self._console.is_dumb_terminal

    @property
    def due(self) -> bool:
        """Whether it is a terminal's, and was not redrawn just now; ask before making its text."""
        return self.live and time.perf_counter() - self._drawn >= REDRAW_SECONDS

    @property
    def width(self) -> int | None:
        """Characters in a line of the terminal; None where lines may have any length."""
        return self._console.width if self.live else None

    def draw(self, text: str, done: float) -> None:
        """Redraw: a text, and the bar filled to the fraction `done`."""
        self._drawn = time.perf_counter()
        room = self._console.width - len(text) - 2
        with self._console as console:  # collects, and writes once
            self.stream.write(ERASE)
            console.print(text, end=" ", no_wrap=True, crop=True)
            if room > 0:
                look = {"complete_style": "green", "finished_style": "green"}
                width = min(BAR_WIDTH, room)
                bar = ProgressBar(total=1, completed=done, width=width, **look)
                console.print(bar, end="")
        self.stream.flush()

    def line(self, text: str) -> None:
        """Write a line in place of the bar."""
        self.stream.write(f"{ERASE if self.live else ''}{text}\n")
        self.stream.flush()


def with_bar(chunks: Iterable[Chunk], size: int, total: int, what: str) -> Iterator[Chunk]:
    """Pass chunks on, with a bar on stderr where that is a terminal, and a line at the end.

    Chunks have `size` images each, and `total` in all; `what`, the task, starts the line.
    """
    bar, started = Bar(sys.stderr), time.perf_counter()
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        if bar.due:
            done = min(number * size, total)
            bar.draw(f"{what} {done:,}/{total:,} images", done / total)
    bar.line(f"{what}: {total:,} images, {time.perf_counter() - started:.1f} s")

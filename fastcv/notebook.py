"""What a notebook shows: bars and tables in place, drawn by fastprogress as fastai's are."""

import sys
import time
from collections.abc import Sequence
from html import escape
from typing import Any

REDRAW_SECONDS = 0.25  # each time, all of the HTML goes to the browser


def in_notebook() -> bool:
    """Return whether output goes to a notebook; IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookBar:
    """A bar in a cell's output, with the interface of `fastcv.terminal.Bar`."""

    live, width = True, None

    def __init__(self) -> None:
        self._drawn = 0.0
        self._display: Any = None  # IPython's handle on what is shown

    @property
    def due(self) -> bool:
        """Whether it was not redrawn just now."""
        return time.perf_counter() - self._drawn >= REDRAW_SECONDS

    def wait(self) -> None:
        """Begin a task; one that is over at once shows no bar."""
        self._drawn = time.perf_counter()

    def draw(self, text: str, done: float | None = None) -> None:
        """Show a text, and a bar filled to the fraction `done` if that is known."""
        from fastprogress.fastprogress import html_progress_bar, show_styles
        from IPython.display import HTML, display

        self._drawn = time.perf_counter()
        html = HTML(escape(text)) if done is None else html_progress_bar(done, 1, text)
        if self._display is None:
            show_styles()
            self._display = display(html, display_id=True)
        else:
            self._display.update(html)

    def erase(self) -> None:
        """Remove the bar."""
        if self._display is not None:
            from IPython.display import HTML

            self._display.update(HTML(""))
            self._display = None

    def line(self, text: str) -> None:
        """Write a line in place of the bar."""
        self.erase()
        print(text)


class NotebookTable:
    """A fit in a cell's output: fastai's two bars, and between them a row for each epoch.

    Args:
        epochs: of the fit.

    Attributes:
        master: fastprogress's master bar, which also draws graphs.
    """

    def __init__(self, epochs: int):
        from fastprogress.fastprogress import NBMasterBar

        self.master = NBMasterBar(range(epochs))
        self.master.update(0)
        self._drawn = 0.0

    @property
    def due(self) -> bool:
        """Whether the batches' bar was not moved just now."""
        return time.perf_counter() - self._drawn >= REDRAW_SECONDS

    def epoch(self, number: int) -> None:
        """Begin an epoch, counted from 0 in this fit."""
        self.master.update(number)

    def part(self, batches: int) -> None:
        """Begin the training or the validation part of an epoch."""
        from fastprogress.fastprogress import NBProgressBar

        self._batches = NBProgressBar(range(batches), parent=self.master)
        self._batches.update(0)

    def batch(self, number: int, comment: str) -> None:
        """Move the batches' bar to a number of batches."""
        self._drawn = time.perf_counter()
        self._batches.comment = comment
        self._batches.update(number)

    def show(self, rows: Sequence[Sequence[str]]) -> None:
        """Replace the table; its first row is the header."""
        from fastcore.basics import NotStr

        # fastprogress's own takes 50 ms for 100 rows.
        self.master.text_parts = [NotStr(_table(rows))]
        self.master.show()

    def end(self) -> None:
        """Remove the bars; table and graph stay."""
        self.master.on_iter_end()


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table in fastprogress's style."""
    header, *body = (
        "".join(f"<{cell}>{escape(text)}</{cell}>" for text in row)
        for cell, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    )
    head, lines = f"<tr>{header}</tr>", "".join(f"<tr>{row}</tr>" for row in body)
    return f'<table class="fastprogress"><thead>{head}</thead><tbody>{lines}</tbody></table>'

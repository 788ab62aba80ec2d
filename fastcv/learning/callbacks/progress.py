"""How a training looks while it runs: a live bar on a terminal, a line an epoch anywhere."""

import sys
import time
from typing import TextIO

from fastai.callback.core import Callback

BAR_WIDTH = 24  # characters
REDRAW_SECONDS = 0.1


class Progress(Callback):
    """Write an epoch's numbers as one line; between them, on a terminal, a bar that moves.

    Reads what `History` gathered, so it comes after it. The bar never reads from the device.
    """

    order, run_valid = 57, True  # before fastai's trackers, which print
    name = "epoch_lines"  # "progress" is fastai's own

    def __init__(self, stream: TextIO | None = None, total_epochs: int | None = None):
        self.stream = stream or sys.stdout
        self.total_epochs = total_epochs
        self.live = self.stream.isatty()
        self.drawn = 0.0

    def after_batch(self) -> None:
        """Move the bar."""
        if not self.live:
            return
        now = time.perf_counter()
        if now - self.drawn < REDRAW_SECONDS or self.learn.borrowed:
            return
        self.drawn = now
        done = (self.learn.iter + 1) / self.learn.n_iter
        filled = "█" * round(done * BAR_WIDTH)
        part = "train" if self.learn.training else "valid"
        self._write_over(f"{self._epoch:>9}  {part} {filled:░<{BAR_WIDTH}} {done:4.0%}")

    def before_epoch(self) -> None:
        """Take down how many epochs there are."""
        self.known = len(self.learn.history.rows)

    def after_epoch(self) -> None:
        """Write the epoch's line, if one was trained: this may be a validation of its own."""
        if len(self.learn.history.rows) > self.known:
            self.line(epoch_line(self.learn.history.row, self.total_epochs))

    def line(self, text: str) -> None:
        """Write a line of its own, over the bar."""
        self._write_over(text)
        self.stream.write("\n")
        self.stream.flush()

    @property
    def _epoch(self) -> str:
        rows = self.learn.history.rows
        number = (rows[-1]["epoch"] if rows else 0) + 1
        return f"epoch {number}" + (f"/{self.total_epochs}" if self.total_epochs else "")

    def _write_over(self, text: str) -> None:
        self.stream.write(f"\r\x1b[2K{text}" if self.live else text)
        self.stream.flush()


def epoch_line(row: dict, total_epochs: int | None = None) -> str:
    """One epoch in words: `epoch 3/16  train 0.4127 85.60 %  valid 0.3981 86.12 %  ...`."""
    total = f"/{total_epochs}" if total_epochs else ""
    parts = [f"epoch {row['epoch']:>{len(total) - 1 if total else 1}}{total}"]
    for split in ("train", "valid"):
        if f"{split}_loss" in row:
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_accuracy"]
            parts.append(f"{split} loss {loss:.4f} accuracy {accuracy:7.2%}")
    parts += [
        f"{name.removeprefix('valid_').replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name.startswith("valid_") and name not in ("valid_loss", "valid_accuracy")
    ]
    if "tta_accuracy" in row:
        parts.append(f"through views {row['tta_accuracy']:7.2%}")
    parts.append(f"{row['seconds']:.1f} s")
    parts.append(f"{row['images_per_second']:,.0f} images/s")
    return "  ".join(parts)

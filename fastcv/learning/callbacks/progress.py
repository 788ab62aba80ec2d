"""How a training looks while it runs: a live bar on a terminal, a line an epoch anywhere."""

import sys
from typing import Any, TextIO

from fastai.callback.core import Callback

from fastcv.terminal import Bar


class Progress(Callback):
    """Write an epoch's numbers as one line; during the epoch, on a terminal, move a bar.

    It reads what `History` recorded, so it runs after it. The bar never reads from the device.
    """

    order, run_valid = 57, True  # before fastai's trackers, which print
    name = "epoch_lines"  # "progress" is fastai's own

    def __init__(self, stream: TextIO | None = None, total_epochs: int | None = None):
        self.bar = Bar(stream or sys.stdout)
        self.total_epochs = total_epochs

    def after_batch(self) -> None:
        """Move the bar."""
        if not self.bar.due or self.learn.borrowed:
            return
        rows = self.learn.history.rows
        epoch = epoch_name((rows[-1]["epoch"] if rows else 0) + 1, self.total_epochs)
        done = (self.learn.iter + 1) / self.learn.n_iter
        self.bar.draw(f"{epoch}  {'train' if self.learn.training else 'valid'} {done:4.0%}", done)

    def before_epoch(self) -> None:
        """Remember how many epochs were recorded before this one."""
        self.known = len(self.learn.history.rows)

    def after_epoch(self) -> None:
        """Write the epoch's line; a `validate` outside of a training has none."""
        if len(self.learn.history.rows) > self.known:
            self.line(epoch_line(self.learn.history.row, self.total_epochs, self.bar.width))

    def line(self, text: str) -> None:
        """Write a line of text in place of the bar."""
        self.bar.line(text)


def epoch_name(epoch: int, total_epochs: int | None = None) -> str:
    """Number an epoch, from 1: `epoch  3/16`, or `epoch 3` where the total is not known."""
    if not total_epochs:
        return f"epoch {epoch}"
    return f"epoch {epoch:>{len(str(total_epochs))}}/{total_epochs}"


def epoch_line(
    row: dict[str, Any], total_epochs: int | None = None, width: int | None = None
) -> str:
    """One epoch as a line: `epoch  3/16  train 0.4127 85.60 %  valid 0.3981 86.12 %  ...`.

    Args:
        row: of metrics.csv. Beside loss and accuracy every other `valid_NAME` is shown.
        total_epochs: of the whole training.
        width: the most characters it may have; what does not fit is left out, the speed first.
    """
    parts = [epoch_name(row["epoch"], total_epochs)]
    for split in ("train", "valid"):
        if f"{split}_loss" in row:
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_accuracy"]
            shown = f"{loss:.4f}" if loss < 10 else f"{loss:.5g}"
            parts.append(f"{split} {shown} {percent(accuracy)}")
    if "tta_accuracy" in row:
        parts.append(f"tta {percent(row['tta_accuracy'])}")
    for key, value in row.items():
        split, _, metric = key.partition("_")
        if split == "valid" and metric not in ("loss", "accuracy") and value is not None:
            parts.append(f"{metric.replace('_', ' ')} {value:.4f}")
    parts += [f"{row['seconds']:.1f} s", f"{row['images_per_second']:,.0f} img/s"]
    while width and len("  ".join(parts)) > width and len(parts) > 1:
        parts.pop()
    return "  ".join(parts)


def percent(fraction: float) -> str:
    """Write a fraction 0-1 in five digits at most: `85.60 %`, `100.0 %`."""
    return f"{f'{100 * fraction:5.2f}':.5} %"

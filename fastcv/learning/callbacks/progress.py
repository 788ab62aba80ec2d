"""How a training looks: a bar on a terminal, a table in a notebook, lines in a file."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from fastai.callback.core import Callback
from fastai.callback.progress import ShowGraphCallback

from fastcv.notebook import NotebookBar, NotebookTable
from fastcv.terminal import Bar, doing, make_bar

# What a row of metrics.csv holds beside metrics.
NO_METRICS = ("stage", "epoch", "lr", "momentum", "seconds", "images_per_second")


class Progress(Callback):
    """Show an epoch's numbers when it is done, and a bar while something runs.

    On a terminal and in a file each epoch is a line, and a terminal has one bar below them; in a
    notebook each fit has fastai's bars and table, with a column for every metric. Predicting,
    validating and the LR finder have a bar too. It reads what `History` recorded, so it runs after
    it, and never reads from the device.

    Args:
        stream: where lines go, and the bar; None is standard output, or the notebook.
        total_epochs: of the whole training, if it is known.

    Attributes:
        mbar: where `ShowGraphCallback` draws; fastprogress's master bar in a notebook.
    """

    order, run_valid = 57, True  # before fastai's trackers, which print
    name = "epoch_lines"  # "progress" is fastai's own
    _stateattrs = ("bar", "mbar", "_table")  # of this process: an exported Learner has none

    def __init__(self, stream: TextIO | None = None, total_epochs: int | None = None):
        self._init_state()
        self.total_epochs = total_epochs
        if stream is not None:
            self.bar = Bar(stream)

    def _init_state(self) -> None:
        """Set what belongs to this process, also where an exported Learner is loaded."""
        super()._init_state()
        self.bar = make_bar()
        self.mbar: Any = None
        self._table: NotebookTable | None = None  # of the running fit

    def before_fit(self) -> None:
        """Begin a fit's table, or a task that is no fit."""
        learn = self.learn
        self.bar.wait()
        if learn.borrowed or not learn.fitting:
            return
        graphs = [each for each in learn.cbs if type(each) is ShowGraphCallback]
        if graphs and not len(learn.dls.valid):
            raise ValueError(
                "ShowGraphCallback needs images to validate on, got none: hold some out, as by "
                "holdout=0.1, or use LossGraph of fastcv.learning"
            )
        self._first = len(learn.history.rows)
        if isinstance(self.bar, NotebookBar):
            self._table = NotebookTable(learn.n_epoch)
            self.mbar = self._table.master
        else:
            self.mbar = _NoGraph(self)

    def before_epoch(self) -> None:
        """Remember how many epochs were recorded before this one."""
        self.known = len(self.learn.history.rows)
        if self._shows_table:
            self._table.epoch(self.learn.epoch)

    def before_train(self) -> None:
        """Begin the bar of the batches."""
        if self._shows_table and len(self.learn.dl):
            self._table.part(len(self.learn.dl))

    before_validate = before_train

    def after_batch(self) -> None:
        """Move the bar."""
        learn = self.learn
        if self._shows_table:
            if self._table.due:
                self._table.batch(learn.iter + 1, "train" if learn.training else "valid")
        elif self.bar.due:
            self.bar.draw(*self._running())

    def after_epoch(self) -> None:
        """Show the epoch's row; a `validate` outside of a training has none."""
        rows = self.learn.history.rows
        if len(rows) == self.known:
            return
        if self._shows_table:
            self.bar.erase()
            self._table.show(table(rows[self._first :]))
        else:
            self.line(epoch_line(rows[-1], self.total_epochs, self.bar.width))

    def after_fit(self) -> None:
        """Remove the bar."""
        self.bar.erase()
        if self._shows_table:
            self._table.end()
            self._table = None

    def line(self, text: str) -> None:
        """Write a line of text in place of the bar."""
        self.bar.line(text)

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Show what takes a while, as long as it does; a file gets a line instead."""
        return doing(what, self.bar)

    def over(self, things: Iterable, what: str, count: int | None = None) -> Iterator[Any]:
        """Pass on batches or other things, with a bar; for what fastai's loop does not read.

        `count` is how many there are, of things without a length.
        """
        count = len(things) if count is None else count
        for number, thing in enumerate(things, start=1):
            yield thing
            if self.bar.due:
                done = min(number / count, 1.0)
                self.bar.draw(f"{what} {done:4.0%}", done)

    @contextmanager
    def without_bar(self) -> Iterator[None]:
        """Write nothing but lines while the block runs."""
        bar, self.bar = self.bar, Bar(getattr(self.bar, "stream", sys.stdout), silent=True)
        try:
            yield
        finally:
            self.bar = bar

    @property
    def _shows_table(self) -> bool:
        return self._table is not None and not self.learn.borrowed

    def _running(self) -> tuple[str, float]:
        """Return what is running, in words, and the fraction that is done."""
        learn = self.learn
        own, done = vars(learn), (learn.iter + 1) / learn.n_iter
        if "lr_finder" in own:
            done = min(learn.lr_finder.done, 1.0)
            what = "finding a learning rate"
        elif "gather_preds" in own:
            what = "predicting"
        elif not learn.fitting:
            what = "validating"
        else:
            rows = learn.history.rows
            epoch = epoch_name((rows[-1]["epoch"] if rows else 0) + 1, self.total_epochs)
            what = f"{epoch}  {'train' if learn.training else 'valid'}"
        return f"{what} {done:4.0%}", done


class _NoGraph:
    """Takes the graphs of `ShowGraphCallback` where there is no notebook to show them."""

    def __init__(self, progress: Progress):
        self.progress, self.mentioned = progress, False

    def update_graph(self, *args: Any, **keywords: Any) -> None:
        """Say once why nothing is drawn."""
        if not self.mentioned:
            self.mentioned = True
            self.progress.line("no loss graph: it is drawn in notebooks only")


class LossGraph(ShowGraphCallback):
    """fastai's `ShowGraphCallback`, which also goes without validation images."""

    def after_epoch(self) -> None:
        """Draw the losses of this fit: smoothed, of each step; and validated, of each epoch."""
        if not self.nb_batches:
            return
        recorder = self.learn.recorder
        losses = [float(loss) for loss in recorder.losses]
        graphs = [(range(len(losses)), losses)]
        if len(self.learn.dls.valid):
            graphs.append((self.nb_batches, [row[1] for row in recorder.values]))
        steps = (self.n_epoch - len(self.nb_batches)) * self.nb_batches[0] + len(losses)
        top = max(max(values) for _, values in graphs)
        self.progress.mbar.update_graph(graphs, (0, steps), (0, top))


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
            parts.append(f"{split} {shown(loss)} {percent(accuracy)}")
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


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return rows of metrics.csv as a table with a header and every metric that was recorded."""
    metrics = dict.fromkeys(key for row in rows for key in row if key not in NO_METRICS)
    first = [key for split in ("train", "valid") for key in (f"{split}_loss", f"{split}_accuracy")]
    order = [key for key in first if key in metrics]
    order += [key for key in metrics if key not in first]
    header = ["epoch", *(key.replace("_", " ") for key in order), "seconds", "images/s"]
    body = [
        [
            str(row["epoch"]),
            *(_cell(key, row.get(key)) for key in order),
            f"{row['seconds']:.1f}",
            f"{row['images_per_second']:,.0f}",
        ]
        for row in rows
    ]
    return [header, *body]


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value).strip() if metric.endswith("_accuracy") else shown(value)


def shown(value: float) -> str:
    """Write a loss or a metric in about five digits: `0.4127`, `12346`."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"


def percent(fraction: float) -> str:
    """Write a fraction 0-1 in five digits at most: `85.60 %`, `100.0 %`."""
    return f"{f'{100 * fraction:5.2f}':.5} %"

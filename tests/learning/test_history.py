import io

import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.torch_core import set_seed
from torch import nn

from fastcv.learning.callbacks.history import History
from fastcv.learning.callbacks.progress import Progress, epoch_line, table
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropy, CrossEntropyLoss
from fastcv.learning.optimizers import SGD
from fastcv.terminal import ERASE


class Terminal(io.StringIO):
    def isatty(self):
        return True


def make_learner(*cbs, n=20):
    set_seed(0)
    x = torch.randn(n, 4)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    loaders = DataLoaders(DataLoader(items, bs=8, shuffle=True), DataLoader(items[:10], bs=8))
    learn = Learner(
        loaders,
        nn.Linear(4, 2),
        loss_func=CrossEntropyLoss(),
        opt_func=SGD(momentum=0.5),
        lr=0.1,
        cbs=[History(), *cbs],
    )
    return learn.remove_cb(ProgressCallback)


def test_rows_are_the_means_over_images_not_over_batches():
    """Batches of 8, 8 and 4: the last must not count as much as the others."""
    learn = make_learner()
    learn.fit(1, lr=0.0)  # the weights stay: the whole set can be measured afterwards
    with torch.no_grad():
        for split, loader in (("train", learn.dls.train), ("valid", learn.dls.valid)):
            x, y = (torch.stack(each) for each in zip(*loader.dataset, strict=True))
            logits = learn.model(x)
            loss = nn.functional.cross_entropy(logits, y).item()
            right = (logits.argmax(1) == y).float().mean().item()
            assert learn.history.row[f"{split}_loss"] == pytest.approx(loss, rel=1e-5)
            assert learn.history.row[f"{split}_accuracy"] == pytest.approx(right)


def test_steps_and_epochs_run_on_over_fits():
    learn = make_learner()
    learn.fit(2)
    learn.fit(1, lr=0.01)
    assert [row["epoch"] for row in learn.history.rows] == [1, 2, 3]
    assert [step["step"] for step in learn.history.steps] == list(range(1, 10))
    assert [step["lr"] for step in learn.history.steps] == [0.1] * 6 + [0.01] * 3
    assert {step["momentum"] for step in learn.history.steps} == {0.5}


def test_listener_gets_each_epoch_with_its_own_steps():
    heard = []
    learn = make_learner()
    learn.history.on_epoch = lambda row, steps: heard.append((row["epoch"], len(steps)))
    learn.fit(2)
    assert heard == [(1, 3), (2, 3)]


@pytest.mark.parametrize("batches", [2, 100])
def test_loss_that_is_not_finite_names_epoch_and_batch(batches):
    learn = make_learner(n=8 * batches)
    learn.fit(1)

    def spoil(callback):
        if learn.training and learn.iter == batches - 1:
            learn.loss_grad = learn.loss_grad * float("nan")
            learn.loss = learn.loss_grad.clone()

    from fastai.callback.core import Callback

    learn.add_cb(Callback(after_loss=spoil))
    with pytest.raises(FloatingPointError) as error:
        learn.fit(1)
    assert f"got nan in epoch 2, batch {batches}: lower" in str(error.value)
    assert "Exception occured" not in str(error.value)


def test_soft_targets_count_as_their_largest_share():
    learn = make_learner()
    one_hot = [(x, nn.functional.one_hot(y, 2).float()) for x, y in learn.dls.train.dataset]
    hard = make_learner()
    learn.dls = DataLoaders(DataLoader(one_hot, bs=8), DataLoader(one_hot, bs=8))
    hard.dls = DataLoaders(
        DataLoader(hard.dls.train.dataset, bs=8), DataLoader(hard.dls.train.dataset, bs=8)
    )
    learn.fit(1)
    hard.fit(1)
    assert learn.history.row["train_accuracy"] == hard.history.row["train_accuracy"]
    assert learn.history.row["train_loss"] == pytest.approx(hard.history.row["train_loss"])


def test_smoothed_loss_equals_torchs():
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert CrossEntropy(label_smoothing=0.1)()(logits, targets) == expected


def test_progress_is_one_line_an_epoch_where_there_is_no_terminal():
    out = io.StringIO()
    make_learner(Progress(out, total_epochs=2)).fit(2)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for word in ("  train ", "  valid ", " %  ", " s  ", " img/s"):
        assert all(word in line for line in lines)


def test_progress_moves_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr("fastcv.terminal.REDRAW_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    make_learner(Progress(out, total_epochs=1)).fit(1)
    text = out.getvalue()
    assert f"epoch 1/1  train  33% {'━' * 8}\r" in text
    assert f"valid 100% {'━' * 24}\r" in text
    assert text.splitlines()[-1].rpartition("\x1b[2K")[2].startswith("epoch 1/1  train 0.")


@pytest.mark.parametrize(
    ("what", "task"),
    [
        ("predicting", lambda learn: learn.get_preds()),
        ("validating", lambda learn: learn.validate()),
        (
            "finding a learning rate",
            lambda learn: learn.lr_find(num_it=30, show_plot=False, suggest_funcs=None),
        ),
    ],
)
def test_what_is_no_training_has_a_bar_that_goes(monkeypatch, what, task):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("fastcv.terminal.REDRAW_SECONDS", 0)
    out = Terminal()
    learn = make_learner(Progress(out))
    learn.fit(1)
    before = out.getvalue()
    task(learn)
    drawn = out.getvalue().removeprefix(before)
    assert all(part.startswith(f"{what} ") for part in drawn.split(ERASE) if part)
    assert drawn.count(f"{what} 100% ") == (what != "finding a learning rate")
    assert drawn.endswith(ERASE)
    with learn.no_bar():
        task(learn)
    assert out.getvalue() == before + drawn


def test_what_is_over_at_once_has_no_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("fastcv.terminal.REDRAW_SECONDS", 3600)
    out = Terminal()
    learn = make_learner(Progress(out))
    learn.get_preds()
    assert out.getvalue() == ""


def test_a_fit_without_a_bar_has_its_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("fastcv.terminal.REDRAW_SECONDS", 0)
    out = Terminal()
    learn = make_learner(Progress(out))
    with learn.no_bar():
        learn.fit(2)
    assert [line[:7] for line in out.getvalue().splitlines()] == ["epoch 1", "epoch 2"]
    assert ERASE not in out.getvalue()


def test_epoch_line_without_validation():
    row = {
        "epoch": 3,
        "train_loss": 0.5,
        "train_accuracy": 0.25,
        "seconds": 1.5,
        "images_per_second": 1234.4,
    }
    assert epoch_line(row) == "epoch 3  train 0.5000 25.00 %  1.5 s  1,234 img/s"


FULL = {
    "epoch": 9,
    "train_loss": 0.4127,
    "train_accuracy": 0.0856,
    "valid_loss": 12345.678,
    "valid_accuracy": 1.0,
    "valid_macro_f1": 0.85317,
    "valid_recall": None,
    "seconds": 123.4,
    "images_per_second": 12345.6,
    "tta_accuracy": 0.9,
}


def test_epoch_line_shows_every_metric_there_is():
    assert epoch_line(FULL, 100) == (
        "epoch   9/100  train 0.4127  8.56 %  valid 12346 100.0 %  tta 90.00 %  macro f1 0.8532  "
        "123.4 s  12,346 img/s"
    )


def test_table_has_a_column_for_every_metric_of_any_row():
    first = {key: FULL[key] for key in FULL if key != "tta_accuracy"} | {"epoch": 8, "stage": 0}
    assert table([first | {"lr": 0.1, "momentum": None}, FULL]) == [
        ["epoch", "train loss", "train accuracy", "valid loss", "valid accuracy", "valid macro f1",
         "valid recall", "tta accuracy", "seconds", "images/s"],
        ["8", "0.4127", "8.56 %", "12346", "100.0 %", "0.8532", "", "", "123.4", "12,346"],
        ["9", "0.4127", "8.56 %", "12346", "100.0 %", "0.8532", "", "90.00 %", "123.4", "12,346"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [12, 40, 80, 92, 200])
def test_epoch_line_keeps_what_fits_and_drops_the_speed_first(width):
    line, whole = epoch_line(FULL, 100, width), epoch_line(FULL, 100)
    assert whole.startswith(line)
    assert len(line) <= max(width, len("epoch   9/100"))
    assert ("img/s" in line) == (len(whole) <= width)


def test_ordinary_epoch_line_fits_80_columns():
    row = {key: FULL[key] for key in FULL if key not in ("tta_accuracy", "valid_macro_f1")}
    assert epoch_line(row, 100, 80) == epoch_line(row, 100)

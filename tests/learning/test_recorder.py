import pickle

import pytest
import torch
from fastai import learner as fastai_learner
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.torch_core import set_seed
from matplotlib import pyplot
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastcv.learning.callbacks import recorder
from fastcv.learning.callbacks.history import CHECK_EVERY, Accuracy, History
from fastcv.learning.learner import Learner
from fastcv.learning.optimizers import SGD


def make_learner(kind=Learner, *, n=60, batch=8, **keywords):
    set_seed(0)
    x = torch.randn(n, 4)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    loaders = DataLoaders(
        DataLoader(items, bs=batch, shuffle=True), DataLoader(items[:20], bs=batch)
    )
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    settings = {"loss_func": nn.CrossEntropyLoss(), "opt_func": SGD(), "metrics": accuracy}
    learn = kind(loaders, net, **settings | keywords)
    learn.remove_cbs(learn.progress)
    learn.logger = lambda row: None
    return learn


def recorded(learn):
    """What a Recorder knows, and the net that it saw."""
    known = learn.recorder
    return {
        "losses": [loss.item() for loss in known.losses],
        "lrs": known.lrs,
        "values": [list(row)[:3] for row in known.values],
        "iters": known.iters,
        "names": list(known.metric_names),
        "smooth": learn.smooth_loss.item(),
        "final": list(learn.final_record),
        "weights": [p.tolist() for p in learn.model.state_dict().values()],
        "counted": (learn.train_iter, learn.pct_train),
    }


@pytest.mark.parametrize("opt_func", [SGD(), Adam], ids=["torch", "fastai"])
def test_fit_and_record_are_those_of_fastai(opt_func):
    ours, theirs = (
        make_learner(kind, opt_func=opt_func) for kind in (Learner, fastai_learner.Learner)
    )
    assert type(ours.recorder) is recorder.Recorder
    assert type(theirs.recorder) is fastai_learner.Recorder
    found = []
    for learn in (ours, theirs):
        learn.fit_one_cycle(3, 0.1)
        found.append(recorded(learn))
    assert found[0] == found[1]
    assert len(found[0]["losses"]) == 3 * 8
    assert ours.recorder.hps == theirs.recorder.hps


def test_frozen_groups_are_trained_as_by_fastai():
    weights = []
    for kind in (Learner, fastai_learner.Learner):
        groups = lambda net: [list(net[:2].parameters()), list(net[3:].parameters())]  # noqa: E731
        learn = make_learner(kind, splitter=groups)
        start = learn.model[0].weight.detach().clone()
        learn.freeze()
        learn.fit(1, 0.1)
        assert torch.equal(learn.model[0].weight, start)
        learn.unfreeze()
        learn.fit(1, slice(0.01, 0.1))
        assert not torch.equal(learn.model[0].weight, start)
        weights.append([p.tolist() for p in learn.model.state_dict().values()])
    assert weights[0] == weights[1]


def test_metrics_of_training_batches_are_recorded_when_asked_for():
    found = []
    for kind in (Learner, fastai_learner.Learner):
        learn = make_learner(kind)
        learn.recorder.train_metrics = True
        learn.fit(2)
        found.append((list(learn.recorder.metric_names), [list(r) for r in learn.recorder.values]))
    assert found[0] == found[1]
    assert found[0][0][1:-1] == ["train_loss", "train_accuracy", "valid_loss", "valid_accuracy"]


def test_smoothed_loss_can_be_read_after_every_batch():
    """As fastai's progress bar does."""
    seen = {}
    for kind in (Learner, fastai_learner.Learner):
        losses = seen[kind] = []
        learn = make_learner(kind)
        reader = Callback()
        reader.order, reader.run_valid = 99, False
        reader.after_batch = lambda learn=learn, losses=losses: losses.append(
            learn.smooth_loss.item()
        )
        learn.fit(2, cbs=reader)
        assert losses == [loss.item() for loss in learn.recorder.losses]
    assert seen[Learner] == seen[fastai_learner.Learner]


def test_validate_gives_loss_and_accuracy():
    ours, theirs = (make_learner(kind) for kind in (Learner, fastai_learner.Learner))
    history = History()
    ours.add_cb(history)
    ours.metrics = Accuracy(history)
    for learn in (ours, theirs):
        learn.fit(2)
    assert list(ours.recorder.metric_names) == list(theirs.recorder.metric_names)
    for row, other in zip(ours.recorder.values, theirs.recorder.values, strict=True):
        assert list(row) == pytest.approx(list(other))
    for ds_idx in (0, 1):
        loss, right = ours.validate(ds_idx)
        assert [loss, right] == pytest.approx(list(theirs.validate(ds_idx)))
    assert len(history.rows) == 2
    assert history.row["valid_accuracy"] == right
    ours.recorder.train_metrics = True
    ours.fit(1)
    assert ours.recorder.values[0][1] == history.row["train_accuracy"]


def test_predictions_have_no_accuracy_of_the_history():
    learn = make_learner()
    history = History()
    learn.add_cb(history)
    learn.metrics = Accuracy(history)
    learn.get_preds()
    assert Accuracy(history).value is None


def test_plots_are_fastais():
    learn = make_learner()
    learn.fit_one_cycle(2, 0.1)
    axes = learn.recorder.plot_loss(skip_start=1)
    train, valid = axes.lines
    assert train.get_ydata().tolist() == [loss.item() for loss in learn.recorder.losses[1:]]
    assert valid.get_ydata().tolist() == [row[1] for row in learn.recorder.values]
    pyplot.close("all")
    learn.recorder.plot_sched()
    assert len(pyplot.gcf().axes) == 2
    pyplot.close("all")


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: numbers that are read, copies that are made."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten._to_copy,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [Learner, fastai_learner.Learner])
def test_no_step_waits_for_the_device(kind, monkeypatch):
    reads = []
    for name in ("tolist", "cpu", "numpy"):
        plain = getattr(Tensor, name)
        monkeypatch.setattr(
            Tensor, name, lambda self, *a, plain=plain, **k: reads.append(1) or plain(self, *a, **k)
        )
    counts = []
    for batches in (20, 60):
        history = History() if kind is Learner else None
        cbs = [history] if history else []
        learn = make_learner(kind, n=8 * batches, cbs=cbs)
        if history:
            learn.metrics = Accuracy(history)
        learn.fit(1)
        reads.clear()
        with Reads() as mode:
            learn.fit(1)
        counts.append(len(reads) + mode.count)
    if kind is Learner:
        assert counts[0] == counts[1] > 0
    else:  # the counter sees what it has to
        assert counts[1] - counts[0] >= 40
    assert batches < CHECK_EVERY


def test_what_waits_is_an_epochs_at_most():
    learn = make_learner(n=8 * 70)
    history = History()
    waiting = []

    def look():
        waiting.append(len(learn.recorder.smooth_loss.waiting))
        assert len(history._tallies[True].waiting) <= CHECK_EVERY

    looking = Callback(after_batch=lambda callback: look())
    looking.order = 99
    learn.fit(3, cbs=[history, looking])
    assert max(waiting) == 70
    assert learn.recorder.smooth_loss.waiting == []
    assert len(learn.recorder.losses) == len(history.steps) == 3 * 70


def test_losses_of_more_than_one_number_are_averaged():
    found = []
    for kind in (Learner, fastai_learner.Learner):

        def keep_all(callback):
            callback.learn.loss = callback.learn.loss.repeat(3)

        learn = make_learner(kind, cbs=Callback(after_loss=keep_all))
        learn.fit(1)
        found.append(recorded(learn))
    assert found[0] == found[1]


def test_record_is_not_saved_with_the_learner():
    learn = make_learner()
    learn.fit(1)
    smooth = learn.smooth_loss.item()
    loaded = pickle.loads(pickle.dumps(learn.recorder.smooth_loss))
    assert loaded.value.item() == smooth
    assert loaded.values == []


def test_learner_without_a_recorder_has_no_smoothed_loss():
    learn = make_learner()
    learn.remove_cb(fastai_learner.Recorder)
    assert not hasattr(learn, "recorder")
    assert not hasattr(learn, "smooth_loss")


def test_fastais_own_recorder_can_be_added():
    learn = make_learner()
    learn.remove_cb(fastai_learner.Recorder)
    learn.add_cb(fastai_learner.Recorder(beta=0.5))
    learn.fit(1)
    assert learn.smooth_loss == learn.recorder.losses[-1]
    assert learn.recorder.smooth_loss.beta == 0.5
    ours = make_learner()
    ours.remove_cb(fastai_learner.Recorder)
    ours.add_cb(recorder.Recorder(beta=0.5))
    ours.fit(1)
    assert ours.smooth_loss == learn.smooth_loss

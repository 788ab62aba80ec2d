"""A training in a notebook, and what fastai has to show one and to set its precision."""

import io
import re
from html import unescape
from types import SimpleNamespace

import pytest
import torch
from fastai.callback import fp16
from fastai.callback.progress import ProgressCallback, ShowGraphCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from torch import nn

from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.learning import SGD, TTA, Constant, CrossEntropy, FromScratch, LossGraph, OneCycle
from fastcv.learning.callbacks.progress import Progress
from fastcv.recipe import Recipe


class Net(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size**2, 4), nn.Linear(4, classes))


def balanced_accuracy(logits, targets):
    return float((logits.argmax(1) == targets).float().mean())


RECIPE = Recipe(
    data=Images(source=Toy(classes=2, size=8, train=40, test=8), size=8, batch_size=16),
    model=FromScratch(net=Net),
    optimizer=SGD(momentum=0.0),
    loss=CrossEntropy(),
    metrics=(balanced_accuracy,),
    schedule=(Constant(epochs=2, lr="minimum"), OneCycle(epochs=2, lr=0.01, callbacks=(TTA(),))),
    precision="fp32",
    name="progress_toy",
)


class Shown:
    """What a notebook was sent: everything, and what each display shows in the end."""

    def __init__(self, outputs):
        self.outputs = outputs

    @property
    def html(self):
        return [each["data"].get("text/html", "") for each in self.outputs]

    @property
    def last(self):
        final = {(each["transient"] or {}).get("display_id"): each["data"] for each in self.outputs}
        return list(final.values())


def cells(html):
    """The rows of an HTML table."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(each) for each in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    """IPython as a notebook's kernel sets it up, with the displays that it is sent."""
    pytest.importorskip("IPython", reason="needs IPython")
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr("fastprogress.fastprogress._style_shown", False)
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.kernel = object()
    shell.display_pub = CapturingDisplayPublisher()
    yield Shown(shell.display_pub.outputs)
    InteractiveShell.clear_instance()


def test_a_notebook_shows_a_table_a_fit_with_all_metrics(notebook, monkeypatch, capsys):
    monkeypatch.setattr("fastcv.notebook.REDRAW_SECONDS", 0)
    learn = learner(RECIPE, device="cpu")
    for stage in RECIPE.schedule:
        stage(learn)
    rates = [rates.suggestions["minimum"][0] for _, rates in learn.history.found]
    assert capsys.readouterr().out == f"learning rate {rates[0]:.2g} (minimum)\n"
    tables = [each["text/html"] for each in notebook.last if "<table" in each.get("text/html", "")]
    first, second = map(cells, tables)
    assert first[0] == [
        "epoch", "train loss", "train accuracy", "valid loss", "valid accuracy",
        "valid balanced accuracy", "seconds", "images/s",
    ]  # fmt: skip
    assert second[0][-3:] == ["tta accuracy", "seconds", "images/s"]
    rows = [dict(zip(table[0], row, strict=True)) for table in (first, second) for row in table[1:]]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    for shown, row in zip(rows, learn.history.rows, strict=True):
        assert float(shown["valid loss"]) == pytest.approx(row["valid_loss"], abs=1e-4)
        assert float(shown["train accuracy"][:-2]) == pytest.approx(
            100 * row["train_accuracy"], abs=0.01
        )
    assert rows[2]["tta accuracy"] == ""
    assert rows[3]["tta accuracy"].endswith(" %")
    assert not [html for html in tables if "<progress" in html]
    live = [html for html in notebook.html if "<progress" in html]
    assert any("train" in html and html.count("<progress") == 2 for html in live)
    assert any("finding a learning rate" in html for html in live)
    assert any("TTA" in html for html in live)
    learn.validate()
    learn.get_preds()
    live = [html for html in notebook.html if "<progress" in html]
    assert [word in html for word, html in zip(("valid", "predict"), live[-2:], strict=True)]
    assert not [each for each in notebook.last if "<progress" in each.get("text/html", "")]


# fastai's hands matplotlib a tensor.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("graph", [ShowGraphCallback, LossGraph])
def test_the_loss_graph_is_drawn_in_a_notebook(notebook, graph, capsys):
    learn = learner(RECIPE, device="cpu")
    drawn = []
    learn.add_cb(graph())
    update = "fastprogress.fastprogress.NBMasterBar.update_graph"
    with pytest.MonkeyPatch.context() as patch:
        from fastprogress.fastprogress import NBMasterBar

        original = NBMasterBar.update_graph
        patch.setattr(update, lambda bar, *a: (drawn.append(a), original(bar, *a)))
        learn.fit(2, 0.01)
    (train, valid), x, y = drawn[-1]
    assert [float(loss) for loss in train[1]] == [float(each) for each in learn.recorder.losses]
    assert valid == ([5, 10], [row["valid_loss"] for row in learn.history.rows])
    assert x == (0, 10)
    assert y[1] >= max(valid[1])
    assert any("image/png" in each or "Figure" in each["text/plain"] for each in notebook.last)
    assert capsys.readouterr().out == ""


def test_a_graph_without_validation_images(notebook):
    data = Images(source=RECIPE.data.source, size=8, batch_size=16, test_validates=False)
    recipe = Recipe(**{**vars(RECIPE), "data": data, "metrics": ()})
    learn = learner(recipe, device="cpu")
    with pytest.raises(ValueError, match="ShowGraphCallback needs images to validate on, got none"):
        learn.fit(1, 0.01, cbs=ShowGraphCallback())
    learn.fit(2, 0.01, cbs=LossGraph())
    assert any("Figure" in each["text/plain"] for each in notebook.last)


def test_out_of_a_notebook_a_graph_is_declined_in_one_line_a_fit(capsys):
    learn = learner(RECIPE, device="cpu")
    learn.fit(2, 0.01, cbs=ShowGraphCallback())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "epoch 1", "no loss graph: it is drawn in notebooks only", "epoch 2",
    ]  # fmt: skip
    assert not hasattr(learn, "progress")


def test_to_fp32_and_back():
    learn = learner(Recipe(**{**vars(RECIPE), "precision": "bf16"}), device="cpu")
    types = []
    learn.model[2].register_forward_hook(lambda layer, args, out: types.append(out.dtype))
    for method, kind in (("to_fp32", torch.float32), ("to_bf16", torch.bfloat16)):
        assert getattr(learn, method)() is learn
        types.clear()
        learn.fit(1, 0.01)
        learn.get_preds()
        assert set(types) == {kind}
    with pytest.raises(ValueError, match="fp16 needs a CUDA device, this Learner is on 'cpu'"):
        learn.to_fp16()
    assert learn.precision.precision == "bf16"


def test_fp16_is_fastais(monkeypatch):
    """On a CPU, which has fp16 and a scaler too, in place of a GPU."""
    monkeypatch.setattr(fp16, "autocast", lambda device, dtype: torch.autocast("cpu", dtype))
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(fp16, "GradScaler", lambda device, **settings: scaler("cpu", **settings))
    learn = learner(Recipe(**{**vars(RECIPE), "precision": "bf16"}), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "device", lambda name: SimpleNamespace(type="cuda"))
        learn.to_fp16(init_scale=256.0)
    types = []
    learn.model[2].register_forward_hook(lambda layer, args, out: types.append(out.dtype))
    learn.fit(1, 0.01)
    plain = learner(RECIPE, device="cpu")
    plain.fit(1, 0.01)
    assert set(types) == {torch.float16}
    assert learn.mixed_precision.kwargs["init_scale"] == 256.0
    for name in ("train_loss", "valid_loss"):  # the scale is not in them
        assert learn.history.row[name] == pytest.approx(plain.history.row[name], rel=1e-2)
    learn.to_fp32()
    assert not hasattr(learn, "mixed_precision")
    types.clear()
    learn.validate()
    assert set(types) == {torch.float32}


def test_a_learner_without_a_precision_is_left_to_fastai():
    from fastcv.learning.learner import Learner

    items = [(torch.zeros(2), torch.tensor(0))]
    loaders = DataLoaders(DataLoader(items, bs=1), DataLoader(items, bs=1))
    learn = Learner(loaders, nn.Linear(2, 2), loss_func=nn.CrossEntropyLoss())
    learn.to_bf16()
    assert learn.mixed_precision.amp_mode is fp16.AMPMode.BF16
    assert not hasattr(learn.to_fp32(), "mixed_precision")
    assert isinstance(learn.progress, ProgressCallback)


def test_an_exported_learner_takes_no_bar_along():
    import pickle

    progress = pickle.loads(pickle.dumps(Progress(io.TextIOWrapper(io.BytesIO()), 7)))
    assert progress.total_epochs == 7
    assert not progress.bar.live

"""A run directory is data: whatever stands in it, reading, reporting or resuming it runs no code.

Each hostile run would leave the file `executed` if what it names were called or imported; that it
would is proven by trusting it.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcv
from fastcv import cli
from fastcv.experiment import directory
from fastcv.experiment.results import Results

STOPPED = Path(__file__).parent.parent / "older" / "stopped"
TRUST = "pass --trust (in Python trust=True) if you trust whoever wrote it"


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """The file that hostile code leaves, and a module and a recipe file that leave it."""
    executed = tmp_path / "executed"
    code = f"import os\nos.mkdir({str(executed)!r})\n"
    (tmp_path / "evil_module.py").write_text(f"{code}def thing(*given, **settings): ...\n")
    (tmp_path / "evil.py").write_text(f"{code}def loss(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield executed
    for name in ("evil_module", "fastcv_recipe_evil"):
        sys.modules.pop(name, None)


@pytest.fixture
def hostile(tmp_path, executed):
    """Make a stopped run whose recipe.json was changed; the text EXECUTED becomes the file's path.

    A slot that is replaced loses what stood below it.
    """

    def make(changes, *, started=None, name="20260101-120000-seed0"):
        run = shutil.copytree(STOPPED, tmp_path / "runs" / "digits" / name)
        written = json.loads((run / "recipe.json").read_text())
        for key in changes:
            for each in [old for old in written["flat"] if old == key or old.startswith(f"{key}.")]:
                del written["flat"][each]
        written["flat"] |= changes
        written |= started or {}
        text = json.dumps(written).replace("EXECUTED", str(executed))
        (run / "recipe.json").write_text(text)
        return run

    return make


def command(monkeypatch, capsys, *arguments):
    """Run `fastcv` with these arguments; return its exit code and stderr, or stdout if it's 0."""
    monkeypatch.setattr(sys, "argv", ["fastcv", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, err if code else out


def contents(folder):
    """Every path in a folder, with its bytes."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


ADDRESSES = {
    "a shell": {"loss": "os:system()", "loss.command": "touch EXECUTED"},
    "a process": {"loss": "subprocess:run()", "loss.args": ["touch", "EXECUTED"]},
    "a folder": {"loss": "os:mkdir()", "loss.path": "EXECUTED"},
    "a module": {"optimizer": "evil_module:thing"},
    "a stage": {"schedule.0": "evil_module:thing()"},
    "a nested setting": {"model.settings.act": "evil_module:thing"},
    "deeper still": {"data.augment": None, "data.augment.0": "evil_module:thing()"},
    "a recipe file": {"loss": "fastcv_recipe_evil:loss"},
}
# These name what looks public, and would not leave the file; they must be refused all the same.
PRETENDERS = {
    "exec": {"optimizer": "builtins:exec()"},
    "a system call as optimizer": {"optimizer": "os:system"},
    "a function of torch.nn": {"loss": "torch.nn.functional:cross_entropy"},
    "a module of torch.nn": {"loss": "torch.nn:init"},
    "what is below torch.nn": {"loss": "torch.nn.modules.module.torch:load"},
    "torchvision's builtins": {"model.net": "torchvision.models:__builtins__"},
    "torchvision's imports": {"model.net": "torchvision.models.resnet:load_state_dict_from_url"},
    "fastcv's imports": {"loss": "fastcv.recipe.addresses:importlib.import_module"},
    "an internal of fastcv": {"loss": "fastcv.catalogue:load_file()", "loss.file": "evil.py"},
    "a loader of recipes": {"loss": "fastcv.recipe:unflat()", "loss.trust": True},
    "a room's own attribute": {"loss": "fastcv.learning:__getattr__()", "loss.name": "weights"},
    "a class's own attribute": {"loss": "fastcv.learning:CrossEntropy.__init__.__globals__"},
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_trusted_it_would_run(hostile, executed, name):
    settings = {"file": str(executed.parent / "evil.py")}
    recipe = fastcv.Run(hostile(ADDRESSES[name], started={"settings": settings}), trust=True).recipe
    if not executed.exists():
        recipe.loss()
    assert executed.exists()


@pytest.mark.parametrize("name", ADDRESSES | PRETENDERS)
def test_what_a_run_must_not_name_is_refused_in_one_sentence(
    hostile, executed, tmp_path, monkeypatch, capsys, name
):
    settings = {"file": str(tmp_path / "evil.py"), "wandb": "off"}
    run = hostile((ADDRESSES | PRETENDERS)[name], started={"settings": settings})
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="a run") as refused:
        fastcv.Run(str(run)).recipe  # noqa: B018
    code, err = command(monkeypatch, capsys, "resume", run)
    assert (code, err) == (2, f"fastcv: {refused.value}\n")
    assert TRUST in err
    assert contents(tmp_path) == before
    assert not executed.exists()


def test_a_recipe_cannot_hand_an_untrusted_one_to_what_it_calls(hostile, executed):
    """`unflat` as a loss, with trust and a second recipe that the first reading does not enter."""
    inner = {"loss": "evil_module:thing"}
    run = fastcv.Run(hostile({"loss": "fastcv.recipe:unflat()", "loss.values": inner,
                              "loss.trust": True}))  # fmt: skip
    with pytest.raises(ValueError, match=r"fastcv\.recipe:unflat"):
        run.recipe  # noqa: B018
    assert not executed.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/../../b", "/abs", "a/", "a/b/c", "a\nb", "a\\b", "~"),
        *(7, ["a"], None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", ["recipe", "started"])
def test_a_name_that_leads_elsewhere_is_refused(
    hostile, tmp_path, monkeypatch, capsys, name, where
):
    changes, started = ({"name": name}, None) if where == "recipe" else ({}, {"name": name})
    run = hostile(changes, started=started)
    before = contents(tmp_path)
    code, err = command(monkeypatch, capsys, "resume", run)
    assert code == 2
    assert err.count("\n") == 1
    assert "name" in err
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match="name"):
        directory.create(name, {"seed": 0}, tmp_path / "new", smoke=False, settings={})
    assert not (tmp_path / "new").exists()


DAMAGED = {
    "a list": "[]",
    "a number": "7",
    "text": '"digits"',
    "no JSON": "{",
    "nested too deep": "[" * 100_000,
    "not UTF-8": b"\xff",
    "empty": "{}",
    "no flat": {"flat": None},
    "flat a list": {"flat": []},
    "no settings": {"settings": None},
    "settings a number": {"settings": 3},
    "settings of another type": {"settings": {"file": 3}},
    "smoke a text": {"smoke": "no"},
    "no seed": {"flat": {"name": "digits"}},
    "a seed of text": {"flat": {"name": "digits", "seed": "0"}},
    "a seed below 0": ("seed", -1),
    "no slots": {"flat": {"name": "digits", "seed": 0}},
    "a slot that is not one": ("loses", 3),
    "a slot of text": ("loss", "cross entropy"),
    "a schedule of text": ("schedule", "long"),
    "a schedule with a gap": ("schedule.2", "fastcv.learning:OneCycle()"),
    "a stage that is a number": ("schedule.1", 7),
    "a step of text": ("step", "compile"),
    "a report of text": ("reported", "Report 003"),
    "settings that do not fit": ("loss.of", 1),
    "a value called with settings": ("data.normalise", "fastcv.data:toy()"),
    "a key that ends in a dot": ("loss.", 1),
    "a key of dots": ("..", 1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_recipe_is_one_sentence(hostile, tmp_path, monkeypatch, capsys, name):
    damage = DAMAGED[name]
    run = hostile(dict([damage]) if isinstance(damage, tuple) else {},
                  started=damage if isinstance(damage, dict) else None)  # fmt: skip
    if isinstance(damage, str | bytes):
        (run / "recipe.json").write_bytes(damage.encode() if isinstance(damage, str) else damage)
    before = contents(tmp_path)
    code, err = command(monkeypatch, capsys, "resume", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert contents(tmp_path) == before


def test_all_of_them_are_reported_as_data_or_left_out(
    hostile, executed, tmp_path, monkeypatch, capsys
):
    summary = {"recipe": "digits", "seed": 0, "smoke": False, "epochs": 1, "seconds": 1.0,
               "valid_accuracy": 0.5}  # fmt: skip
    settings = {"file": str(tmp_path / "evil.py")}
    for index, changes in enumerate([*ADDRESSES.values(), *PRETENDERS.values()]):
        run = hostile(changes, started={"settings": settings}, name=f"address-{index}")
        (run / "summary.json").write_text(json.dumps(summary))
    for index, name in enumerate(["..", "../x", "a/../../b", "/abs", "a\nb"]):
        run = hostile({"name": name}, started={"name": name}, name=f"name-{index}")
        (run / "summary.json").write_text(json.dumps(summary))
    for index, damage in enumerate(each for each in DAMAGED.values() if isinstance(each, str)):
        (hostile({}, name=f"damaged-{index}") / "recipe.json").write_text(damage)
    before = contents(tmp_path)
    for arguments in (["--out", tmp_path / "out"], ["--save-results", tmp_path / "out" / "saved"]):
        code, out = command(monkeypatch, capsys, "report", tmp_path / "runs", *arguments)
        assert code == 0
        warned = [line for line in out.splitlines() if f"{tmp_path / 'runs'}" in line]
        names = {re.search(r"digits/([\w-]+)", line)[1] for line in warned if "address" not in line}
        assert names == {*(f"name-{n}" for n in range(5)), *(f"damaged-{n}" for n in range(6))}
    out = tmp_path / "out"
    assert {path for path in contents(tmp_path) if out not in [path, *path.parents]} == set(before)
    assert not executed.exists()
    assert not {"evil_module", "fastcv_recipe_evil"} & set(sys.modules)


OWN = """
from dataclasses import dataclass, replace
from fastcv.recipes.digits import recipe as digits
@dataclass(frozen=True)
class Loss:
    def __call__(self):
        return digits.loss()
recipe = replace(digits, loss=Loss(), schedule=(replace(digits.schedule[0], epochs=2),))
"""


def test_a_run_of_ones_own_file_is_resumed_with_trust_alone(tmp_path, undrawn, monkeypatch, capsys):
    file = tmp_path / "mine.py"
    file.write_text(OWN)

    def stop(self, parameters):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Results, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            fastcv.train(fastcv.get_recipe(str(file)), out=tmp_path, wandb="off", device="cpu")
    (run,) = (tmp_path / "mine").iterdir()
    assert f"resume it with: fastcv resume {run} --trust" in capsys.readouterr().out
    sys.modules.pop("fastcv_recipe_mine")
    code, err = command(monkeypatch, capsys, "resume", run)
    assert (code, err.count("\n")) == (2, 1)
    assert TRUST in err
    assert "fastcv_recipe_mine" not in sys.modules
    assert command(monkeypatch, capsys, "resume", run, "--trust")[0] == 0
    assert fastcv.Run(run).summary["epochs"] == 2
    assert fastcv.Run(run, trust=True).learner("cpu").validate()[1] == pytest.approx(
        fastcv.Run(run).summary["valid_accuracy"]
    )


@pytest.mark.parametrize("link", ["figures", "wandb", ".lock"])
def test_a_run_that_would_write_elsewhere_is_refused(hostile, tmp_path, monkeypatch, capsys, link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = hostile({})
    (run / link).symlink_to(elsewhere)
    code, err = command(monkeypatch, capsys, "resume", run)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{link}' is a link: remove it" in err
    assert list(elsewhere.iterdir()) == []


def test_files_are_written_through_no_link(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("kept")
    (tmp_path / f".summary.json.{os.getpid()}.part").symlink_to(mine)
    (tmp_path / "summary.json").symlink_to(mine)
    fastcv.files.write_json(tmp_path / "summary.json", {})
    assert mine.read_text() == "kept"
    assert not (tmp_path / "summary.json").is_symlink()


OWN_NET = """\
from torch import nn

import fastcv
from fastcv.learning import FromScratch, OneCycle


class Perceptron(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))


recipe = fastcv.replace(
    fastcv.get_recipe("digits"),
    name="own",
    model=FromScratch(net=Perceptron),
    schedule=(OneCycle(epochs=1, lr=3e-3),),
)
"""


def test_a_net_of_your_own_file_predicts_if_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    file = tmp_path / "own.py"
    file.write_text(OWN_NET)
    lines = []
    run = fastcv.train(
        fastcv.get_recipe(str(file)), out=tmp_path / "runs", wandb="off", write=lines.append
    )
    assert any(f"fastcv predict {run.path} PHOTO... --trust" in line for line in lines)
    expected = run.learner().model
    sys.modules.pop("fastcv_recipe_own")  # another process has not run the file yet
    with pytest.raises(ValueError, match=re.escape(TRUST)):
        fastcv.load(run.path)
    assert "fastcv_recipe_own" not in sys.modules
    predictor = fastcv.load(run.path, trust=True)
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    logits = expected.eval()(torch.tensor(image / 255, dtype=torch.float32)[None, None])
    assert predictor(image).label == predictor.classes[int(logits.argmax())]
    assert predictor(image).probability == pytest.approx(logits.softmax(1).max().item(), abs=1e-5)
    file.unlink()
    with pytest.raises(ValueError, match=r"must find its file.*put it back"):
        fastcv.load(run.path, trust=True)

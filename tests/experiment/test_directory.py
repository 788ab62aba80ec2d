import pydoc
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

import fastcv
from fastcv.experiment import directory
from fastcv.experiment.building import learner, smoked
from fastcv.learning import Pretrained, weights
from fastcv.recipes.digits import recipe as digits

OLDER = Path(__file__).parent.parent / "older"
SETTINGS = {"device": None, "wandb": "off", "file": None, "cwd": None}


@pytest.fixture
def finished(tmp_path):
    return fastcv.Run(str(shutil.copytree(OLDER / "finished", tmp_path / "run")))


def test_reading_a_run_imports_neither_torch_nor_fastai():
    code = (
        "import fastcv, sys\n"
        f"run = fastcv.Run({str(OLDER / 'finished')!r})\n"
        "run.summary, run.metrics, run.steps, run.environment, run.figures, run.started, str(run)\n"
        "print({'torch', 'fastai', 'matplotlib', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_run_shows_what_it_holds(finished):
    assert repr(finished) == f"Run({str(finished.path)!r})"
    assert repr(fastcv.Run("here", trust=True)) == "Run('here', trust=True)"
    assert finished == fastcv.Run(finished.path)
    assert len({finished, fastcv.Run(finished.path)}) == 1
    assert finished.recipe == digits
    assert finished.check() == fastcv.check(finished)
    assert finished.summary["epochs"] == len(finished.metrics) == 10
    assert len(finished.steps) == 10 * (1438 // 32)
    assert finished.resume_command is None


def test_its_figures_are_found_by_name(finished):
    assert finished.figures == {}
    (finished.path / "figures").mkdir()
    for name in ("curves.png", "schedule.png", "notes.txt"):
        (finished.path / "figures" / name).touch()
    assert finished.figures == {
        name: finished.path / "figures" / f"{name}.png" for name in ("curves", "schedule")
    }


def test_its_help_is_a_page():
    page = pydoc.plain(pydoc.render_doc(fastcv.Run))
    for name in ("learner", "resume", "check", "recipe", "summary", "metrics", "steps", "figures"):
        assert f" {name}" in page
    public = {name for name in vars(fastcv.Run) if not name.startswith("_")}
    assert all(getattr(fastcv.Run, name).__doc__ for name in public)


def test_its_learner_has_the_trained_weights(finished):
    learn = finished.learner("cpu")
    saved = weights.read(finished.path / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in learn.model.state_dict().items())
    _, accuracy = learn.validate()
    assert accuracy == pytest.approx(finished.summary["valid_accuracy"], abs=0.01)
    assert learn.predict(learn.dls.valid_ds.items[0].image)[0] in learn.dls.vocab


def test_a_smoke_run_has_the_learner_of_its_thinner_net(tmp_path):
    run = directory.create("digits", fastcv.flat(digits), tmp_path, smoke=True, settings=SETTINGS)
    thin = learner(smoked(digits), device="cpu").model
    weights.save(thin, run.path / "model.safetensors")
    assert torch.equal(
        torch.cat([each.flatten() for each in run.learner("cpu").model.parameters()]),
        torch.cat([each.flatten() for each in thin.parameters()]),
    )


def test_the_learner_of_a_pretrained_net_fetches_no_other_weights(tmp_path, monkeypatch):
    def fetch(*arguments):
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(weights, "named", fetch)
    recipe = replace(digits, model=Pretrained(arch=resnet18))
    data = replace(digits.data, train_per_class=10)
    recipe = replace(recipe, data=data)
    with pytest.raises(AssertionError, match="were fetched"):
        learner(recipe, device="cpu")
    run = directory.create("digits", fastcv.flat(recipe), tmp_path, smoke=False, settings=SETTINGS)
    net = learner(replace(recipe, model=replace(recipe.model, weights=None)), device="cpu").model
    torch.nn.init.ones_(net.fc.bias)
    weights.save(net, run.path / "model.safetensors")
    assert run.learner("cpu").model.fc.bias.tolist() == [1.0] * 10


def test_a_run_without_weights_has_no_learner(tmp_path):
    run = fastcv.Run(shutil.copytree(OLDER / "stopped", tmp_path / "run"))
    assert run.summary == {}
    message = rf"must be finished to have weights, .*: finish it with fastcv resume {run.path}$"
    with pytest.raises(ValueError, match=message):
        run.learner()
    (run.path / "last.ckpt").unlink()
    with pytest.raises(ValueError, match=r"has none$"):
        run.learner()


def test_a_run_is_resumed_by_itself(tmp_path, undrawn):
    run = fastcv.Run(shutil.copytree(OLDER / "stopped", tmp_path / "run"))
    before, lines = run.metrics, []
    (run.path / ".metrics.csv.1.part").write_text("what a killed process left")
    assert run.resume(device="cpu", write=lines.append) is run
    assert run.metrics[: len(before)] == before
    assert run.summary["epochs"] == 10
    assert lines[-1] == str(run.path)
    assert not list(run.path.glob(".*"))
    with pytest.raises(ValueError, match="is finished"):
        run.resume()

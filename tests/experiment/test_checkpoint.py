from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from fastai.optimizer import Adam
from fastcore.foundation import L
from torchvision.models import resnet18

from fastcv import catalogue, files, tracking
from fastcv.data import ImageFolders, LongTail
from fastcv.experiment import directory
from fastcv.experiment.building import learner
from fastcv.experiment.directory import Run
from fastcv.experiment.origin import defining_file
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import EMA, OneCycle, Pretrained
from fastcv.learning.callbacks import checkpoint
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.recipe import flat, override
from fastcv.recipes.digits import recipe as digits

SMALL = replace(digits, data=replace(digits.data, train_per_class=10))


@dataclass(frozen=True, kw_only=True)
class TwoFits:
    """A stage of one's own: fits of fastai's, and a validation between them."""

    epochs: int = 3

    def __call__(self, learn):
        learn.fit_one_cycle(1, 3e-3)
        learn.validate()
        learn.fit_one_cycle(2, 1e-3)


BLANK = {
    "stage": 0, "epochs": 1, "model": {}, "optimizer": {}, "rows": [], "steps": [], "found": [],
    "callbacks": [], "random": {},
}  # fmt: skip


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", [digits.optimizer, Adam], ids=["torch", "fastai"])
@pytest.mark.parametrize("done", [1, 2])
def test_a_stage_with_several_fits_goes_on_in_the_one_that_was_stopped(
    tmp_path, monkeypatch, optimizer, done
):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    recipe = replace(SMALL, schedule=(TwoFits(),), optimizer=optimizer)

    def trained(**options):
        return train(
            recipe, out=tmp_path, wandb="off", device="cpu", write=lambda line: None, **options
        )

    whole = trained()
    after_epoch = Checkpoint.after_epoch

    def stop(self):
        after_epoch(self)
        if len(self.learn.history.rows) == done and self.learn.fitting:
            raise Stop("after an epoch")

    monkeypatch.setattr(Checkpoint, "after_epoch", stop)
    with pytest.raises(Stop):
        trained()
    monkeypatch.setattr(Checkpoint, "after_epoch", after_epoch)
    (stopped,) = (path for path in (tmp_path / "digits").iterdir() if path != whole.path)
    resumed = trained(resume=stopped)
    assert len(resumed.metrics) == 3
    assert resumed.steps == whole.steps
    assert resumed.metrics[-1]["valid_loss"] == whole.metrics[-1]["valid_loss"]


def test_what_a_thread_writes_while_the_training_goes_on_resumes_it(tmp_path, monkeypatch):
    """The thread begins when the next epoch's first batch has changed the weights."""
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    monkeypatch.setattr(Checkpoint, "_beside", True)
    recipe = replace(SMALL, schedule=(OneCycle(epochs=3, lr=3e-3, callbacks=(EMA(),)),))
    options = {"out": tmp_path, "wandb": "off", "device": "cpu", "write": lambda line: None}
    whole = train(recipe, **options)
    gate, save, after_batch = Event(), Checkpoint._save, Checkpoint.after_batch
    saved = []

    def late(self, state):
        assert gate.wait(10)
        save(self, state)
        saved.append(state["epochs"])

    def open_gate(self):
        after_batch(self)
        if self.learn.history.rows:
            gate.set()
        if len(self.learn.history.rows) == 2:
            raise Stop("in the third epoch")

    monkeypatch.setattr(Checkpoint, "_save", late)
    monkeypatch.setattr(Checkpoint, "after_batch", open_gate)
    with pytest.raises(Stop):
        train(recipe, **options)
    assert saved == [1, 2]  # also the one that was being written
    monkeypatch.setattr(Checkpoint, "after_batch", after_batch)
    (stopped,) = (path for path in (tmp_path / "digits").iterdir() if path != whole.path)
    resumed = train(recipe, resume=stopped, **options)
    assert len(resumed.metrics) == 3
    assert resumed.steps == whole.steps
    assert resumed.metrics[-1]["valid_loss"] == whole.metrics[-1]["valid_loss"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_what_a_thread_cannot_write_is_raised_by_the_next_checkpoint_or_at_the_end(
    tmp_path, monkeypatch, epochs
):
    monkeypatch.setattr(Checkpoint, "_beside", True)
    ends = []

    def full(self, state):
        ends.append(state["epochs"])
        raise files.NoRoom("writing 'last.ckpt' needs room")

    monkeypatch.setattr(Checkpoint, "_save", full)
    recipe = replace(SMALL, schedule=(OneCycle(epochs=epochs, lr=3e-3),))
    with pytest.raises(files.NoRoom, match=r"writing 'last\.ckpt' needs room"):
        train(recipe, out=tmp_path, wandb="off", device="cpu", write=lambda line: None)
    assert ends == [1]


def test_a_full_disk_does_not_hide_how_to_go_on(tmp_path, monkeypatch, capsys):
    write_csv = files.write_csv

    def full(path, rows):
        if path.name == "steps.csv":
            raise OSError("no space left on device")
        write_csv(path, rows)

    def stop(self, parameters):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_csv", full)
    monkeypatch.setattr(Results, "write", stop)
    recipe = replace(SMALL, schedule=(replace(digits.schedule[0], epochs=1),))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path, wandb="off", device="cpu")
    (run,) = (tmp_path / "digits").iterdir()
    assert capsys.readouterr().out.endswith(f"stopped; resume it with: fastcv resume {run}\n")


def test_a_stop_while_tracking_begins_leaves_nothing(tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "start", stop)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, out=tmp_path / "runs", wandb="off", device="cpu", write=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_plain_state_is_read_without_unpickling_objects(tmp_path):
    rest = BLANK
    state = rest | {
        "lr": np.float64(0.5), "hypers": L({"eps": np.float32(1)}), "left": (torch.ones(1),)
    }  # fmt: skip
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(
        ValueError, match=r"plain data only, .* holds also numpy.*scalar: start a new"
    ):
        checkpoint.read(tmp_path / "last.ckpt")
    torch.save(checkpoint._plain(state), tmp_path / "last.ckpt")
    assert checkpoint.read(tmp_path / "last.ckpt") == rest | {
        "lr": 0.5, "hypers": [{"eps": 1.0}], "left": (torch.ones(1),)
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, keep):
    file = tmp_path / "last.ckpt"
    torch.save({"weights": torch.zeros(4000)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"'.*last.ckpt' cannot be read \(\w+\): start a new run"):
        checkpoint.read(file)


@pytest.mark.parametrize("state", [[1, 2], {"model": {}}])
def test_a_checkpoint_that_lacks_something_is_one_sentence(tmp_path, state):
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"must hold stage, epochs, .*last.ckpt' has no such"):
        checkpoint.read(tmp_path / "last.ckpt")


def test_random_states_of_gpus_that_are_not_here_are_left_out(monkeypatch):
    learn, restored = learner(SMALL, device="cpu"), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(device))
    state = checkpoint.random_state(learn) | {"cuda": [torch.get_rng_state()] * 2}
    checkpoint.restore_random_state(learn, state)
    assert restored == [0]


OWN = """
from dataclasses import dataclass, replace
from fastcv.recipes.digits import recipe
@dataclass(frozen=True, kw_only=True)
class Loss:
    def __call__(self):
        return recipe.loss()
variants = {"own": replace(recipe, loss=Loss())}
"""


def test_a_run_finds_the_file_it_needs_or_says_which(tmp_path):
    file = tmp_path / "needed.py"
    file.write_text(OWN)

    def put(reference):
        recipe = override(catalogue.get_recipe(reference), "name=mine")
        settings = {"file": defining_file(recipe) or str(file)}
        return recipe, directory.create(
            "mine", flat(recipe), tmp_path, smoke=False, settings=settings
        )

    plain, without = put(f"{file}")
    recipe, run = put(f"{file}/own")
    assert defining_file(recipe) == str(file.resolve())
    assert type(Run(run.path, trust=True).recipe.loss).__module__ == "fastcv_recipe_needed"
    file.rename(tmp_path / "moved.py")
    assert Run(without.path).recipe == plain
    with pytest.raises(ValueError, match=r"must find its file, '.*needed.py' does not exist"):
        Run(run.path, trust=True).recipe  # noqa: B018


def test_a_relative_data_folder_is_the_one_where_the_run_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = replace(digits.data, source=ImageFolders(path="photos"), path="~/elsewhere")
    recipe = replace(digits, data=data)
    settings = {"file": None, "cwd": str(tmp_path)}
    run = directory.create("digits", flat(recipe), tmp_path, smoke=False, settings=settings)
    assert Run(run.path).recipe == recipe
    monkeypatch.chdir("/")
    found = Run(run.path).recipe.data
    assert Path(found.source.path) == tmp_path / "photos"
    assert found.path == "~/elsewhere"


def test_relative_paths_within_a_source_and_of_weights_are_those_where_the_run_began(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.safetensors").touch()
    source = LongTail(source=ImageFolders(path="photos"), ratio=2)
    for weights, kept in (("start.safetensors", False), ("DEFAULT", True)):
        recipe = replace(
            digits,
            data=replace(digits.data, source=source),
            model=Pretrained(arch=resnet18, weights=weights),
        )
        settings = {"file": None, "cwd": str(tmp_path)}
        run = directory.create("digits", flat(recipe), tmp_path, smoke=False, settings=settings)
        monkeypatch.chdir("/")
        found = Run(run.path).recipe
        assert Path(found.data.source.source.path) == tmp_path / "photos"
        assert found.model.weights == (weights if kept else str(tmp_path / weights))
        monkeypatch.chdir(tmp_path)


def test_removing_a_run_leaves_folders_that_were_there_before(tmp_path):
    def removed(out):
        directory.remove(directory.create("digits", {"seed": 0}, out, smoke=False, settings={}))
        return out.exists()

    (tmp_path / "mine").mkdir()
    assert removed(tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())
    assert not removed(tmp_path / "new")

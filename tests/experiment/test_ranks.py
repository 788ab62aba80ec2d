"""Several ranks, as torchrun starts them, train what one process trains, and outlive one."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import ranked
import torch
from safetensors.torch import load_file
from torch import distributed
from typer.testing import CliRunner

from fastcv import ranks
from fastcv.augment import Affine, CutMix, HorizontalFlip, MixUp, RandomErasing, RandomResizedCrop
from fastcv.augment.part import drawing, part_of
from fastcv.cli import app
from fastcv.data.loader import draws_for_part
from fastcv.experiment import launch
from fastcv.experiment.building import built
from fastcv.experiment.directory import Run
from fastcv.experiment.train import train
from fastcv.interpret.predicted import own_places
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.learning.parallel import share, whole_dropout
from fastcv.recipe import flat
from fastcv.recipe.values import Step

ROUNDING = (
    2e-5  # of weights after some steps; one process's differ as much in another order of sums
)


def as_rank(monkeypatch, rank, count):
    """Let this process pass for one of several ranks, without the others."""
    joined = ranks._Joined(rank=rank, count=count, local=rank, tensors=None, patient=None)
    monkeypatch.setattr(ranks, "_joined", joined)


def laid_out(x):
    return x.contiguous(memory_format=torch.channels_last)


def run_in(folder):
    (path,) = folder.glob("*/recipe.json")
    return Run(path.parent, trust=True)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Train on two ranks, of which one is killed, and on one process."""
    out = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--max-restarts=1", str(Path(ranked.__file__)), str(out)]
    printed, errors = out / "printed", out / "errors"
    with (
        printed.open("w") as stdout,
        errors.open("w") as stderr,
        subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=os.environ | {"OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        try:
            with pytest.MonkeyPatch.context() as patch:
                ranked.undrawn(patch)
                for name, recipe in ranked.RECIPES.items():
                    ranked.trained(name, recipe, out / "one")
            assert process.wait(timeout=600) == 0, errors.read_text()
        finally:
            process.terminate()
    return out


@pytest.mark.parametrize("name", ranked.RECIPES)
def test_two_ranks_equal_one_process_up_to_rounding(together, name):
    """mixed: a padded batch, dropout, MixUp and CutMix, accumulation, EMA; found: the LR finder,
    early stopping, freezing, Muon, TTA, metrics and somebody's own augmentation; head: stored
    features and fastai's tracker; uncached: batches that every rank decodes."""
    one, two = (run_in(together / kind / name) for kind in ("one", "ranks"))
    for key, weights in load_file(one.path / "model.safetensors").items():
        torch.testing.assert_close(
            load_file(two.path / "model.safetensors")[key], weights, rtol=0, atol=ROUNDING
        )
    assert [row["loss"] for row in two.steps] == pytest.approx([row["loss"] for row in one.steps])
    for ours, theirs in zip(two.metrics, one.metrics, strict=True):
        assert {k: v for k, v in ours.items() if "accuracy" in k} == {
            k: v for k, v in theirs.items() if "accuracy" in k
        }
    same = [key for key in one.summary if key.endswith(("accuracy", "score", "epochs", "images"))]
    assert {key: two.summary[key] for key in same} == {key: one.summary[key] for key in same}
    assert (two.path / "predictions.csv").read_text().splitlines()[0] == (
        one.path / "predictions.csv"
    ).read_text().splitlines()[0]
    assert two.summary["step"]["features"] == one.summary["step"]["features"] == (name == "head")
    assert two.environment["ranks"] == 2


def test_only_the_first_rank_writes_and_prints(together):
    folders = list(together.glob("ranks/*/*"))
    assert len(folders) == len(ranked.RECIPES)
    printed = (together / "printed").read_text().splitlines()
    assert sum("epoch 1/1" in line for line in printed) == 1
    assert sum("Better model found at epoch 0" in line for line in printed) == 1
    assert not any("Better" in line for line in (together / "errors").read_text().splitlines())


def test_a_killed_rank_ends_the_others_and_a_restart_equals_a_run_without_it(together):
    whole, stopped = run_in(together / "whole" / "killed"), run_in(together / "stopped" / "killed")
    assert [row["loss"] for row in stopped.steps] == [row["loss"] for row in whole.steps]
    weights = load_file(whole.path / "model.safetensors")
    for name, tensor in load_file(stopped.path / "model.safetensors").items():
        assert tensor.equal(weights[name])
    assert len(stopped.environment["resumed"]) == 1


def test_a_rank_whose_partner_is_gone_says_so(monkeypatch):
    """The launcher may end it before it can: so two ranks of one process."""
    store = distributed.HashStore()

    def join(rank):
        return distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=60))

    with ThreadPoolExecutor(2) as threads:
        groups = list(threads.map(join, range(2)))
    del groups[1]
    monkeypatch.setattr(ranks, "asked", lambda: 2)
    with (
        pytest.raises(ranks.Lost, match=r"another one has ended, .* [(].*closed by peer"),
        ranks.lost_in_words(),
    ):
        groups[0].allreduce([torch.ones(1)]).wait()


def test_batch_norm_is_synchronized_on_request(together):
    found = json.loads((together / "found.json").read_text())
    assert found["gradients"] < 1e-9
    assert found["statistics"] < 1e-12


def test_a_run_of_two_ranks_goes_on_with_one_and_says_what_that_changes(together, undrawn):
    stopped = run_in(together / "stopped" / "killed")
    (stopped.path / "summary.json").unlink()
    lines = []
    recipe = replace(ranked.LONG, name="killed")
    done = train(recipe, resume=stopped, wandb="off", device="cpu", write=lines.append)
    assert done.summary["epochs"] == 3
    (said,) = (line for line in lines if "up to rounding" in line)
    assert "2 ranks" in said
    assert "one process" in said


@pytest.mark.parametrize(("images", "count"), [(13, 3), (2, 4), (8, 4), (1, 1)])
def test_parts_of_a_batch_are_disjoint_and_leave_nothing_out(monkeypatch, images, count):
    found, padded = [], 0
    for rank in range(count):
        as_rank(monkeypatch, rank, count)
        part = part_of(images)
        found += [] if part is None else part.places.tolist()
        again = part_of(images, before=2, padded=True)
        assert len(again.places) == max(again.own, 1) + 2
        assert again.mixed().places.tolist() == (part.places.tolist() if part else [0])
        assert again.places[:2].tolist() == [(again.places[2] - 2) % images, again.places[1]]
        padded += again.own == 0
    assert found == list(range(images))
    assert padded == max(count - images, 0)


@pytest.mark.parametrize(
    "augmentation",
    [
        Affine(degrees=20, scale=(0.8, 1.2), shear=5),
        HorizontalFlip(),
        RandomErasing(value="random"),
        RandomResizedCrop(size=12),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_part_is_augmented_as_in_the_whole_batch(monkeypatch, augmentation):
    x = laid_out(torch.rand(7, 3, 12, 12))
    assert draws_for_part(augmentation)
    torch.manual_seed(3)
    whole = augmentation(x)
    state = torch.get_rng_state()
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        part = part_of(len(x), before=1)
        torch.manual_seed(3)
        with drawing(part):
            ours = augmentation(laid_out(part.of(x)))
        torch.testing.assert_close(ours, part.of(whole), rtol=0, atol=1e-6)
        assert torch.get_rng_state().equal(state)


def test_mixed_parts_are_those_of_the_mixed_batch(monkeypatch):
    x, y = torch.rand(5, 1, 8, 8), torch.arange(5)
    torch.manual_seed(3)
    whole = CutMix()(*MixUp()(x, y, classes=5))
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        part = part_of(5, before=2)
        torch.manual_seed(3)
        with drawing(part):
            ours = CutMix()(*MixUp()(part.of(x), part.of(y), classes=5))
        for mine, every in zip(ours, whole, strict=True):
            torch.testing.assert_close(mine[2:], part.mixed().of(every))


def test_dropout_of_a_part_is_torchs_of_the_whole_batch(monkeypatch):
    x = laid_out(torch.rand(5, 4, 3, 3))
    torch.manual_seed(3)
    whole = torch.nn.functional.dropout(x, 0.4)
    as_rank(monkeypatch, 1, 2)
    part = part_of(5)
    torch.manual_seed(3)
    with drawing(part):
        assert whole_dropout(laid_out(part.of(x)), 0.4).equal(part.of(whole))


def test_ranks_predict_whole_batches_and_every_image_once(monkeypatch):
    found = []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        places = own_places(45, 10)
        assert all(place % 10 == 0 for place in places[:1])
        found += places
    assert found == list(range(45))


def test_a_graph_and_unknown_batch_norm_are_refused(monkeypatch):
    as_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match="single process"):
        Stepper(Step(graph="on"), torch.device("cpu"), backend=object())
    assert Stepper(Step(graph="try"), torch.device("cpu"), backend=object()).graph is None

    class Own(torch.nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="the net has a Own"):
        share(torch.nn.Sequential(Own(3)), sync_batch_norm=True)


def test_ranks_take_their_own_gpu_and_no_other_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [ranks.gpu_of(0), ranks.gpu_of(1)] == [0, 1]
    with pytest.raises(ValueError, match="start at most 2 processes"):
        ranks.gpu_of(2)
    as_rank(monkeypatch, 1, 2)
    with pytest.raises(ValueError, match="device must be cpu or cuda"):
        built(ranked.LONG, device="cuda:1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recipe", "digits", "--seeds", "2"], "a series must be run by one process"),
        (["bench"], "several ranks can run recipe and resume together"),
    ],
)
def test_what_ranks_cannot_share_is_refused(monkeypatch, arguments, says):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ValueError)
    assert says in str(result.exception)


def test_a_launcher_that_tells_too_little_is_said(monkeypatch):
    for name in ranks.TOLD:
        monkeypatch.delenv(name, raising=False)
    assert ranks.asked() == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="there is no LOCAL_RANK, MASTER_ADDR"), ranks.joined():
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE must be a whole number"):
        ranks.asked()


def test_a_restarted_launcher_finds_its_own_run_only(tmp_path, monkeypatch):
    recipe = ranked.LONG
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    stopping = replace(recipe, callbacks=(_StopAfterOne,))
    with pytest.raises(RuntimeError, match="stop"):
        ranked.trained("killed", stopping, tmp_path)
    run = run_in(tmp_path / "killed")
    values = flat(replace(stopping, name="killed"))

    def found(values=values, smoke=False):
        return launch.started_before("killed", values, tmp_path, smoke=smoke)

    assert found() is None  # the job was not started again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert found() == run
    assert found(values | {"seed": 1}) is None
    assert found(smoke=True) is None
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert found() is None


class _StopAfterOne(ranked.Callback):
    order = 101

    def after_epoch(self):
        raise RuntimeError("stop")

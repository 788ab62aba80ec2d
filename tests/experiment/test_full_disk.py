"""A full disk: one sentence, nothing half written, and the run goes on once there is room."""

import errno
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from fastcv import cli, files, interpret
from fastcv.experiment.directory import Run
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.files import NoRoom
from fastcv.learning import OneCycle, weights
from fastcv.recipes.digits import recipe as digits

resource = pytest.importorskip("resource", reason="limits of files are a matter of Unix")
RECIPE = replace(
    digits,
    data=replace(digits.data, train_per_class=8),
    schedule=(OneCycle(epochs=3, lr=1e-3),),
)


@contextmanager
def files_of_at_most(size):
    """Let no file grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_figure(path):
    figure, axes = plt.subplots()
    axes.plot([1, 2, 1])
    interpret.save(figure, path)
    plt.close(figure)


def write_checkpoint(path):
    with files.atomic(path, 400_000) as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


@pytest.mark.parametrize(
    "write",
    [
        write_figure,
        write_checkpoint,
        lambda path: files.write_csv(path, [{"loss": 0.1}] * 2000),
        lambda path: weights.save(nn.Linear(100, 100), path),
    ],
    ids=["figure", "checkpoint", "csv", "weights"],
)
def test_a_file_that_finds_no_room_is_one_sentence_and_leaves_nothing(tmp_path, write):
    path = tmp_path / "it"
    path.write_text("before")
    words = r"^writing 'it' needs [\d.]+ [kM]B or more in '.*', where .* is free \(.*\): make room"
    with files_of_at_most(1000), pytest.raises(NoRoom, match=words) as caught:
        write(path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["it"]
    assert path.read_text() == "before"
    write(path)
    assert path.read_bytes() != b"before"


def test_amounts_have_their_natural_unit():
    written = [files.amount(size) for size in (1, 12, 4100, 1_300_000, 2_000_000_000)]
    assert written == ["1 byte", "12 bytes", "5 kB", "1.3 MB", "2.0 GB"]


def test_other_errors_of_a_file_stay_what_they_are(tmp_path):
    with pytest.raises(KeyError), files.atomic(tmp_path / "it"):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.fixture
def disk(tmp_path):
    """A disk whose room can be changed."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")

    def resize(size):
        remount = ["mount", "-o", f"remount,size={size}", str(place)]
        subprocess.run(remount, check=True, capture_output=True)

    yield place, resize
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(disk, capsys, monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    out, resize = disk

    def refused(**more):
        with pytest.raises(NoRoom, match="make room") as caught:
            train(RECIPE, wandb="off", device="cpu", write=lambda line: None, **more)
        return str(caught.value)

    assert "'last.ckpt' needs 0.7 MB or more" in refused(out=out / "runs")
    assert not (out / "runs").exists()
    resize("1m")  # for one checkpoint, not for the next beside it
    assert "'last.ckpt' needs 0.7 MB or more" in refused(out=out / "runs")
    (path,) = (out / "runs" / "digits").iterdir()
    assert f"resume it with: fastcv resume {path}" in capsys.readouterr().out
    assert not [each.name for each in path.iterdir() if each.name.endswith((".part", ".lock"))]
    assert len(Run(path).metrics) >= 1
    refused(resume=path)  # the disk is still full
    resize("20m")
    run = train(RECIPE, resume=path, wandb="off", device="cpu", write=lambda line: None)
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3]


def test_a_new_run_without_room_for_its_recipe_leaves_no_folder(tmp_path, monkeypatch):
    with files_of_at_most(100), pytest.raises(NoRoom, match=r"'recipe\.json' needs"):
        train(RECIPE, out=tmp_path / "runs", wandb="off", device="cpu", write=lambda line: None)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "models/best.pth"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_what_a_callback_cannot_write_is_one_sentence(tmp_path, monkeypatch, error):
    from fastcv.learning.callbacks.history import History

    def fail(self):
        raise error

    monkeypatch.setattr(History, "before_train", fail)
    with pytest.raises(NoRoom, match="make room"):
        train(RECIPE, out=tmp_path, wandb="off", device="cpu", write=lambda line: None)


def test_a_loss_that_is_not_finite_is_not_resumed_into(tmp_path, monkeypatch, capsys):
    from fastcv.learning.callbacks.history import History

    def fail(self):
        if self.rows:
            raise FloatingPointError("the loss must stay finite, got nan in epoch 2, batch 1")

    monkeypatch.setattr(History, "before_train", fail)
    monkeypatch.setattr(History, "after_train", lambda self: None)
    monkeypatch.setattr(History, "after_batch", lambda self: None)
    monkeypatch.setattr(History, "after_epoch", lambda self: self.rows.append({"epoch": 1}))
    monkeypatch.setattr(
        "fastcv.learning.callbacks.progress.Progress.after_epoch", lambda self: None
    )
    with pytest.raises(FloatingPointError):
        train(RECIPE, out=tmp_path, wandb="off", device="cpu", write=lambda line: None)
    printed = capsys.readouterr().out
    (run,) = (tmp_path / "digits").iterdir()
    assert f"stopped; what it measured until then is in {run}\n" in printed
    assert "resume" not in printed


def test_an_output_that_takes_nothing_is_one_sentence(monkeypatch, capsys):
    def full(**options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(cli, "_close_stdout", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    words = "fastcv: the output cannot be written: No space left on device\n"
    assert capsys.readouterr().err == words

from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastcv
from fastcv.cli import app
from fastcv.predict.device import named_device

OLDER = Path(__file__).parent.parent / "older" / "finished"


def test_a_device_that_is_none_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="device must be cpu, cuda, cuda:N or mps, got 'gpu'"):
        named_device("gpu")
    assert str(named_device("cpu")) == "cpu"


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' needs a GPU and a build of torch for it"):
        named_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(named_device("cuda:1")) == "cuda:1"
    with pytest.raises(ValueError, match="'cuda:2' must be one of the 2 GPUs here"):
        named_device("cuda:2")


@pytest.mark.parametrize("command", ["predict", "validate", "explain"])
def test_commands_on_a_finished_run_refuse_a_device_that_is_none(tmp_path, command):
    paths = [str(tmp_path)] if command == "predict" else []
    done = CliRunner().invoke(app, [command, str(OLDER), *paths, "--device", "gpu"])
    assert isinstance(done.exception, ValueError)
    assert str(done.exception) == "device must be cpu, cuda, cuda:N or mps, got 'gpu'"


def test_loading_refuses_a_device_that_is_none():
    with pytest.raises(ValueError, match="device must be cpu"):
        fastcv.load(OLDER, device="cdua")

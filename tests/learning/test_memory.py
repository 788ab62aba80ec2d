"""What a batch needs of memory, and the sentence where it needs too much."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastcv.experiment.building import learner
from fastcv.experiment.train import train
from fastcv.learning import memory
from fastcv.learning.callbacks.history import History
from fastcv.recipes.digits import recipe as digits

SMALL = replace(digits, data=replace(digits.data, train_per_class=10, batch_size=64))


@pytest.fixture(scope="module")
def learn():
    return learner(SMALL, device="cpu")


def test_kept_bytes_are_those_of_the_tensors_that_a_backward_pass_needs(learn, monkeypatch):
    # A linear layer keeps its input, a ReLU its result: 4 bytes times 192, and times 8.
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU())
    monkeypatch.setattr(learn, "model", net)
    assert memory.kept_bytes(learn, (3, 8, 8)) == 4 * (192 + 8)


def test_measuring_leaves_no_trace(learn):
    before = {name: each.clone() for name, each in learn.model.state_dict().items()}
    random, training = torch.get_rng_state(), learn.model.training
    memory.kept_bytes(learn, learn.dls.image_shape)
    assert torch.equal(torch.get_rng_state(), random)
    assert learn.model.training == training
    for name, value in learn.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_batch_larger_than_memory_is_refused_before_training(tmp_path, monkeypatch, learn):
    per_image = memory.kept_bytes(learn, learn.dls.image_shape)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 40 * per_image)
    words = r"but 64 images need .* GB: set batch_size to 32, as by --set data.batch_size=32$"
    with pytest.raises(ValueError, match=words):
        train(SMALL, out=tmp_path / "runs", wandb="off", device="cpu", write=lambda line: None)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(memory, "free_bytes", lambda device: 65 * per_image)
    memory.check_batch(learn)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_in_training_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(History, "before_train", fail)
    with pytest.raises(ValueError, match="64 images need more: set batch_size to 32") as caught:
        train(SMALL, out=tmp_path / "runs", wandb="off", device="cpu", write=lambda line: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_other_errors_stay_what_they_are(learn):
    with pytest.raises(RuntimeError, match="sizes differ"), memory.memory_in_words(learn):
        raise RuntimeError("sizes differ")


def test_free_bytes_are_the_least_of_machine_and_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert memory.free_bytes(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    assert memory.free_bytes(cpu) == 4096
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.free_bytes(cpu) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(cpu) == 4096

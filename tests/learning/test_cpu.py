import json
import os
import subprocess
import sys

import pytest
import torch

from fastcv.learning import cpu

FAULTS = """
import json
import resource
import torch
from fastcv.learning.cpu import keep_freed_memory

torch.set_num_threads(1)

def step():
    tensors = [torch.ones(size, 2**18) for size in (3, 17, 40)]  # 3, 17 and 40 MiB
    del tensors

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def of_steps():
    for _ in range(5):
        step()
    return [faults() for _ in range(20)]

print(json.dumps([of_steps(), keep_freed_memory(), of_steps()]))
"""


@pytest.mark.skipif(
    not (sys.platform == "linux" and "glibc" in os.confstr("CS_GNU_LIBC_VERSION")),
    reason="needs glibc",
)
def test_memory_that_is_kept_is_not_asked_for_page_by_page_again():
    unset = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    unset.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-W", "ignore", "-c", FAULTS]
    said = subprocess.run(command, env=unset, check=True, capture_output=True, text=True).stdout
    many, kept, few = json.loads(said)
    assert kept
    # In two steps a tensor may find a new place: what the process frees besides shifts the rest.
    assert len(few) == 20
    assert sum(sorted(few)[:-2]) < 200
    assert min(many) > 1_000
    assert sum(many) > 20_000


DENORMALS = """
import numpy as np
import torch
from fastai.callback.core import Callback
from fastcv import catalogue
from fastcv.experiment.building import learner, smoked

torch.set_num_threads(2)

class Kept(Callback):
    def after_batch(self):
        tiny = torch.from_numpy(np.full(2**20, 1e-39, np.float32))
        self.kept = (tiny * 1).view(torch.int32).count_nonzero().item()

learn = learner(smoked(catalogue.get_recipe("digits")), device="cpu")
kept = Kept()
learn.fit(1, 1e-3, cbs=kept)
print(kept.kept, (np.full(1, 1e-39, np.float32) * 1)[0] > 0)
"""


def test_denormal_numbers_are_zero_in_a_fit_on_all_threads_and_kept_after_it():
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DENORMALS],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    assert said == "0 True"


def test_the_mode_of_denormal_numbers_is_put_back():
    tiny = torch.tensor(1e-39)
    torch.set_flush_denormal(True)
    try:
        with cpu.denormals_flushed():
            assert tiny * 1 == 0
        assert tiny * 1 == 0
    finally:
        torch.set_flush_denormal(False)
    with pytest.raises(ZeroDivisionError), cpu.denormals_flushed():
        raise ZeroDivisionError
    assert tiny * 1 > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_ARENA_MAX", "2"),
        ("MALLOC_TOP_PAD_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=9"),
    ],
)
def test_settings_of_ones_own_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not cpu.keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not cpu.keep_freed_memory()

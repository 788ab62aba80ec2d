import os

import pytest
import torch

torch.set_num_threads(1)  # the nets are tiny: threads would only wait for each other
os.environ["WANDB_MODE"] = "offline"  # no test reaches for the network by accident


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("network") and not os.environ.get("FASTCV_NETWORK"):
            item.add_marker(pytest.mark.skip(reason="needs the internet: set FASTCV_NETWORK=1"))


@pytest.fixture
def note(record_property):
    """Write a line below the tests' results: what a GPU showed, to decide on defaults."""
    return lambda line: record_property("note", line)


def pytest_terminal_summary(terminalreporter):
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == "note" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {line}")


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the figures of trainings, which take longer than these: others look at them."""
    from fastcv.experiment.results import Results

    monkeypatch.setattr(Results, "_draw", lambda self: None)


@pytest.fixture
def short_finder(monkeypatch):
    """Look for a stage's rate in 30 steps instead of 100: enough for every method."""
    from fastcv.learning.stages import stage

    monkeypatch.setattr(stage, "FINDER_STEPS", 30)


@pytest.fixture(autouse=True, scope="session")
def _same_precision():
    """Let "auto" mean fp32 on every processor: numbers of the tests are those of fp32."""
    from fastcv.learning.callbacks import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "cpu_has_bf16", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Keep every test away from the user's data, caches and W&B account."""
    home = tmp_path_factory.getbasetemp() / "fastai"
    monkeypatch.setenv("FASTAI_HOME", str(home))
    monkeypatch.delenv("FASTCV_DATA", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

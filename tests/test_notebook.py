"""The notebook on somebody's own photos is run, cell by cell, on generated ones."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest
from photos import make_photos, small

from fastcv import Run
from fastcv.recipes import transfer_resnet18

NOTEBOOK = Path(__file__).parent.parent / "docs" / "your_photos.ipynb"
CELLS = [
    cell
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def test_the_notebook_is_short_and_without_outputs():
    assert sum(line.strip() != "" for cell in CELLS for line in cell["source"]) <= 20
    assert not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # fastai's show
def test_the_notebook_runs_on_photos(tmp_path, short_finder, monkeypatch):
    make_photos(tmp_path / "photos", classes=("cat", "dog", "owl"), count=15)
    monkeypatch.chdir(tmp_path)
    thin = small(transfer_resnet18.variants["one_cycle"])
    monkeypatch.setitem(transfer_resnet18.variants, "one_cycle", thin)
    names = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in CELLS:
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    run = names["run"]
    assert run == Run(next(tmp_path.glob("runs/photos/*")).relative_to(tmp_path))
    assert run.summary["epochs"] == 2
    _, accuracy = names["learn"].validate()
    assert accuracy == pytest.approx(run.summary["valid_accuracy"], abs=1e-4)

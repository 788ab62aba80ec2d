import json
import shutil
from dataclasses import replace

import pytest

from fastcv import catalogue, files
from fastcv.experiment import directory
from fastcv.recipe import flat, override

PACKAGES = {"fastcv": "0.1.0", "torch": "2.15.0", "fastai": "2.8.12"}


@pytest.fixture(scope="session")
def write_run():
    """Write a run directory with the files of a finished run, as `train` does, without training."""

    def write(
        out,
        name,
        *changes,
        seed=0,
        smoke=False,
        finished=True,
        file=None,
        device_name="A(R) Processor",
        precision="fp32",
        epochs=None,
        seconds=60.0,
        figures=None,
        without=(),
        own_name=None,
        changed=None,
        **measured,
    ):
        recipe = replace(override(catalogue.get_recipe(name), *changes), seed=seed)
        if own_name:
            recipe = replace(recipe, name=own_name)
        values = {key: value for key, value in flat(recipe).items() if key not in without}
        settings = {"device": None, "wandb": "off", "file": file}
        run = directory.create(
            recipe.name, values, out, smoke=smoke, settings=settings, changed=changed
        )
        planned = sum(stage.epochs for stage in recipe.schedule)
        rows = [
            {"stage": 0, "epoch": epoch, "train_loss": 1 / epoch, "valid_accuracy": 0.5}
            for epoch in range(1, (epochs or planned) + 1)
        ]
        files.write_csv(run.path / "metrics.csv", rows)
        files.write_json(
            run.path / "environment.json",
            {
                "command": f"fastcv recipe {recipe.name} --seed {seed}",
                "device": "cpu",
                "device_name": device_name,
                "precision": precision,
                "packages": PACKAGES,
                "git_revision": "0123abc",
            },
        )
        if finished:
            files.write_json(
                run.path / "summary.json",
                {
                    "recipe": recipe.name,
                    "seed": seed,
                    "smoke": smoke,
                    **measured,
                    "epochs": len(rows),
                    "seconds": seconds,
                    "warmup_seconds": 0.5,
                    "images_per_second": 100.0,
                },
            )
        if figures is not None:
            shutil.copytree(figures, run.path / "figures")
        return run.path

    return write


@pytest.fixture
def edit_json():
    """Change a JSON file in place."""

    def edit(file, **values):
        given = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(given | values), encoding="utf-8")

    return edit

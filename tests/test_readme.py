import re
from pathlib import Path

import numpy as np
from PIL import Image

from fastcv.recipe import override
from fastcv.recipes import light_resnet_cifar10

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def make_small_cifar10(folder):
    """Two images a class, in CIFAR-10's folders: a thin net is through in seconds."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            place = folder / "cifar10" / split / name
            place.mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    make_small_cifar10(tmp_path / "data")
    monkeypatch.setenv("FASTCV_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    thin = override(light_resnet_cifar10.recipe, "model.settings.widths=(4,4,8,8)")
    thin = override(thin, "schedule.0.epochs=3")
    monkeypatch.setattr(light_resnet_cifar10, "recipe", thin)
    (code,) = [block for block in code_blocks("python") if "learner(recipe)" in block]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    run = names["run"]
    assert run.path.parent == Path("runs/light_resnet_cifar10")
    assert run.summary["seed"] == 7
    assert run.summary["epochs"] == 3
    printed = capsys.readouterr().out
    assert "within tolerance" in printed
    assert "0.9147" in printed


def test_the_commands_of_the_readme_are_real():
    from typer.main import get_command

    from fastcv.cli import app

    known = get_command(app).commands
    for block in code_blocks("bash"):
        for line in block.splitlines():
            for call in re.findall(r"fastcv ([\w-]+)((?: --[\w-]+)?)", line.partition("#")[0]):
                command, option = call[0], call[1].strip()
                assert command in known, line
                options = {name for p in known[command].params for name in p.opts}
                assert not option or option in options, line


def test_every_option_the_readme_names_exists():
    from typer.main import get_command

    from fastcv.cli import app

    options = {
        name for command in get_command(app).commands.values() for p in command.params
        for name in p.opts
    }  # fmt: skip
    for option in re.findall(r"`(--[a-z-]+)", README):
        assert option in options, option

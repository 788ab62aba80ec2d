"""What the README and the pages of docs/ show is run: their Python, their commands, their links."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from course import COURSE
from photos import make_photos, small
from typer.main import get_command
from typer.testing import CliRunner

import fastcv
from fastcv import catalogue
from fastcv.cli import app
from fastcv.experiment import results
from fastcv.recipe import override
from fastcv.recipes import light_resnet_cifar10

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def code_blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands():
    """Every `fastcv ...` line of the pages' shell blocks, without its comment."""
    for page in PAGES:
        for block in code_blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for call in re.findall(r"fastcv .*", line):
                    words = shlex.split(call, comments=True)
                    ends = [at for at, word in enumerate(words) if word in (">", "|", "||", "&&")]
                    yield words[: min(ends, default=None)]


def readme_block(text):
    (code,) = [block for block in code_blocks(ROOT / "README.md", "python") if text in block]
    return code


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_runs(here, undrawn, monkeypatch, capsys):
    make_photos(here / "data" / "cifar10", splits=("train", "test"), classes=CLASSES, size=(32, 32))
    monkeypatch.setenv("FASTCV_DATA", str(here / "data"))
    thin = override(light_resnet_cifar10.recipe, "model.settings.widths=(4,4,8,8)")
    thin = override(thin, "schedule.0.epochs=3")
    monkeypatch.setattr(light_resnet_cifar10, "recipe", thin)
    names = {}
    exec(compile(readme_block("get_recipe"), "README.md", "exec"), names)
    run = names["run"]
    assert run.path.parent == Path("runs/light_resnet_cifar10")
    assert run.summary["seed"] == 7
    assert run.summary["epochs"] == 3
    _, accuracy = names["learn"].validate()
    assert accuracy == pytest.approx(run.summary["valid_accuracy"], abs=1e-4)
    printed = capsys.readouterr().out
    assert "within tolerance" in printed
    assert "0.9147" in printed
    written = {
        f"{file.name}/" if file.is_dir() else file.name
        for file in run.path.iterdir()
        if not file.name.startswith(".")
    }
    page = (ROOT / "docs/reference/run-directory.md").read_text(encoding="utf-8")
    assert written - {"figures/"} <= set(re.findall(r"^\| `(.+?)` \|", page, flags=re.MULTILINE))


def test_the_recipe_for_your_own_photos_runs(here, short_finder):
    code = readme_block("ImageFolders")
    assert len(code.splitlines()) <= 25
    (here / "my_photos.py").write_text(code)
    make_photos(here / "photos", classes=("cat", "dog", "owl"), count=10)
    run = fastcv.train(small(fastcv.get_recipe("my_photos.py")))
    assert run.path.parent == Path("runs/my_photos")
    assert (run.summary["epochs"], len(run.metrics)) == (2, 2)
    assert (run.path / "classes.json").is_file()


@pytest.mark.parametrize(
    ("page", "place", "code"),
    [
        pytest.param(page, place, code, id=f"{page.stem}-{place}")
        for page in PAGES[1:]
        if page.stem != "export"  # its snippets run elsewhere: tests/experiment/test_export_run.py
        if page not in [ROOT / f"docs/{name}.md" for name in COURSE]  # run whole: test_course.py
        for place, code in enumerate(code_blocks(page, "python"))
    ],
)
def test_the_python_of_the_pages_runs(page, place, code, here, monkeypatch):
    if place:  # figures take most of such a run's time: the first of each page has them
        monkeypatch.setattr(results.Results, "_draw", lambda self: None)
    shutil.copytree(ROOT / "tests/older/finished", here / "runs/digits/20260101-120000-seed0")
    if "labels.csv" in code:
        make_photos(here / "photos", count=10)
        rows = [
            f"{label}/{n},{label},{n // 2},{label}{' small' if n % 3 else ''}"
            for label in ("cat", "dog")
            for n in range(10)
        ]
        (here / "photos/labels.csv").write_text("\n".join(["file,species,animal,tags", *rows]))
    names = {}
    exec(compile(code, page.name, "exec"), names)
    if "recipe" in names:
        (here / "mine.py").write_text(code)
        recipe = override(fastcv.get_recipe("mine.py"), "schedule.0.epochs=1")
        run = fastcv.train(recipe, wandb="off")
        assert run.summary["epochs"] == 1
        assert fastcv.flat(fastcv.Run(run.path, trust=True).recipe) == fastcv.flat(recipe)


def test_the_commands_of_the_pages_are_real():
    known = get_command(app).commands
    for command, *words in (each[1:] for each in commands()):
        assert command in known, command
        if "--help" not in words:
            known[command].make_context(command, list(words))  # parses, and runs nothing


def test_the_recipes_and_settings_of_the_commands_exist():
    found = [
        words[1:]
        for words in commands()
        if words[1] == "recipe" and words[2].partition("/")[0] in catalogue.names()
    ]
    assert found
    for words in found:
        listed = CliRunner().invoke(app, [*words, "--dry-run"])
        assert listed.exit_code == 0, (words, listed.exception)


def test_every_option_the_pages_name_exists():
    options = {
        name for command in get_command(app).commands.values() for p in command.params
        for name in p.opts
    }  # fmt: skip
    for page in PAGES:
        for option in re.findall(r"`(--[a-z0-9-]+)", page.read_text(encoding="utf-8")):
            assert option in options, (page.name, option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link

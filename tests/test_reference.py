"""The reference is complete, and what the site generates for it is what the code does."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import io
import json
import pkgutil
import re
import statistics
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command

import fastcv
from fastcv import interruption, learning
from fastcv.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = ("augment", "data", "interpret", "learning", "nets", "predict", "recipe")
PUBLIC = [
    getattr(module, name)
    for module in (importlib.import_module(f"fastcv.{room}") for room in ROOMS)
    for name in module.__all__
]
VALUES = [each for each in PUBLIC if isinstance(each, type) and dataclasses.is_dataclass(each)]
MODEL_JSON = "fastcv.predict.TrainedModel"  # on two pages: it is what model.json holds

_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def reference(page):
    return (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")


def documented():
    """Every name that a page of the reference describes from its docstring, with its page."""
    return [
        (name, page.stem)
        for page in sorted((DOCS / "reference").glob("*.md"))
        for name in re.findall(r"^::: ([\w.]+)", page.read_text("utf-8"), flags=re.MULTILINE)
    ]


def test_the_reference_describes_every_public_name():
    described = [pkgutil.resolve_name(name) for name, _ in documented()]
    described.append(fastcv.replace)  # of the standard library: a section of its own
    assert "### replace" in reference("recipe")
    rooms = [getattr(fastcv, name) for name in fastcv.__all__ if name in ROOMS]
    public = [*PUBLIC, *(getattr(fastcv, name) for name in fastcv.__all__)]
    missing = [each for each in public if not any(each is other for other in [*described, *rooms])]
    assert missing == []


def test_the_reference_describes_only_public_names_and_each_once():
    names = [name for name, page in documented() if (name, page) != (MODEL_JSON, "run-directory")]
    assert len(names) == len(set(names))
    public = [*PUBLIC, *(getattr(fastcv, name) for name in fastcv.__all__)]
    for name in names:
        assert any(pkgutil.resolve_name(name) is each for each in public), name


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_field_of_a_value_is_described(value):
    ours = [each for each in value.__mro__ if each.__module__.startswith("fastcv")]
    described = "\n".join(inspect.getdoc(each) or "" for each in ours)
    for field in dataclasses.fields(value):
        assert re.search(rf"^ +(\w+, )*{field.name}(, \w+)*: ", described, re.MULTILINE), field.name


def test_every_augmentation_net_and_stage_is_shown():
    shown = re.findall(r"^<!-- draws: (\w+)\(", reference("augment"), flags=re.MULTILINE)
    augmentations = {
        name for name in fastcv.augment.__all__ if isinstance(getattr(fastcv.augment, name), type)
    } - {"Augmentation", "Composition", "Resampling", "Normalize"}
    assert augmentations <= set(shown)
    shown = re.findall(r"^<!-- shapes: (\w+)\(", reference("nets"), flags=re.MULTILINE)
    assert set(shown) == set(fastcv.nets.__all__)
    stages = {
        name
        for name in learning.__all__
        if inspect.isclass(getattr(learning, name))
        and issubclass(getattr(learning, name), learning.Stage)
    } - {"Stage"}
    shown = re.findall(r"^<!-- curve: (\w+)\(", reference("stages"), flags=re.MULTILINE)
    assert set(shown) == stages


def test_every_mark_of_the_pages_can_be_made():
    marks = [
        mark
        for page in DOCS.rglob("*.md")
        for mark, _ in generate.MARK.findall(page.read_text("utf-8"))
    ]
    assert set(generate.MAKERS) <= set(marks)
    assert set(marks) - {"results"} <= set(generate.MAKERS)


def test_the_command_line_is_described_as_its_help_describes_it():
    page = generate.commands("", None)
    for name, command in get_command(app).commands.items():
        described = page.partition(f"{{ #{name} }}")[2].partition("\n## ")[0].replace("`", "")
        assert " ".join(command.help.split("\n\n")[0].split()) in described
        for each in command.params:
            if each.param_type_name == "option" and each.name != "help":
                assert each.opts[0] in described, (name, each.name)
            assert (each.help or "").replace("`", "").replace("|", "\\|") in described


def test_the_exit_codes_are_those_of_the_code():
    codes = reference("terminal").partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", codes, flags=re.MULTILINE)
        for number in row.split(",")
    }
    signals = {interruption.Interrupted(number).code for number in (2, 15, 1)}
    assert listed == {0, 1, 2, interruption.CHECKPOINTED, *signals, 128 + 13}


def test_the_environment_variables_are_those_of_the_code():
    read = set()
    for file in (ROOT / "fastcv").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "os.environ" in text:
            literals = (
                node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)
            )
            read |= {
                each
                for each in literals
                if isinstance(each, str)
                and re.fullmatch(r"[A-Z]+(_[A-Z]+)+_?", each)
                and not each.startswith("SC_")  # names of os.sysconf
            }
    rows = reference("terminal").partition("## Environment variables")[2].partition("\n\nOther")[0]
    assert read
    for name in read:
        assert f"`{name}" in rows, name
    for name in re.findall(r"`([A-Z_]+_[A-Z_]+)[`…]", rows):
        assert name in read, name


@pytest.mark.parametrize("name", ["BaseNet", "LightResNet", "SpeedrunNet"])
def test_the_layers_of_a_net_have_all_its_parameters_and_end_in_logits(name):
    net = getattr(fastcv.nets, name)(classes=7)
    found = list(generate.layers(net, 3, 32))
    assert sum(count for *_, count in found) == sum(each.numel() for each in net.parameters())
    assert found[-1][2] == (7,)


def test_the_layers_of_a_net_have_the_shapes_of_torch():
    net = nn.Sequential()
    net.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    net.flat = nn.Flatten()
    net.head = nn.Linear(8 * 4 * 4, 5)
    assert list(generate.layers(net, 3, 8)) == [
        ("body.0-1", "Conv2d, ReLU", (8, 8, 8), 3 * 8 * 9 + 8),
        ("body.2", "MaxPool2d", (8, 4, 4), 0),
        ("flat", "Flatten", (128,), 0),
        ("head", "Linear", (5,), 128 * 5 + 5),
    ]


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("a", "a"),
        ("ab", "a, b"),
        ("abab", "2 times a, b"),
        ("cabab", "c, 2 times a, b"),
        ("aba", "a, b, a"),
    ],
)
def test_what_repeats_is_written_once(words, written):
    assert generate.repeated(list(words)) == written


def test_a_drawn_curve_is_that_of_torch():
    rates, momenta = generate.stage_curve(learning.OneCycle(epochs=3, lr=0.4, div=10))
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.04, momentum=0.9)
    assert len(rates) == len(momenta) == 3 * generate.STEPS
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(0.4)
    assert min(momenta) == pytest.approx(0.85)
    plateau = learning.Plateau(epochs=8, lr=0.4, patience=1)
    rule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    for group in optimizer.param_groups:
        group["lr"] = 0.4
    expected = []
    for loss in (1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 5, 1 / 5, 1 / 5):
        expected += generate.STEPS * [optimizer.param_groups[0]["lr"]]
        rule.step(loss)
    assert generate.stage_curve(plateau) == (expected, [])
    assert len(set(expected)) == 2


@pytest.mark.parametrize("expression", ["HorizontalFlip(p=1.0)", "AlternatingFlip()"])
def test_the_draws_of_an_augmentation_are_of_one_photo(expression):
    files = {}
    generate.draws(expression, lambda name, content: files.setdefault(name, content))
    (content,) = files.values()
    with Image.open(io.BytesIO(content)) as image:
        sheet = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        side, gap = generate.SIDE, 4
        assert image.size == (4 * (side + gap) - gap, 2 * (side + gap) - gap)
        sheet = sheet.view(image.height, image.width, 3).permute(2, 0, 1).float()
    photo = generate.photo("china.jpg").float()
    first = sheet[:, :side, :side]
    error, mirrored = ((first - each).abs().mean() for each in (photo, photo.flip(-1)))
    assert min(error, mirrored) < 8 < max(error, mirrored)  # JPEG costs some levels of 255
    if "p=1.0" in expression:
        assert mirrored < error
    second = sheet[:, :side, side + gap : 2 * side + gap]
    same = (first - second).abs().mean() < 8
    assert same == ("p=1.0" in expression)


def test_the_drawn_rooms_are_those_of_the_import_contract():
    with (ROOT / "pyproject.toml").open("rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    names = {
        name.strip().removeprefix("fastcv.")
        for layer in contract["layers"]
        for name in layer.split("|")
    }
    assert set(re.findall(r">([\w.]+)</text>", generate.rooms("", None))) == names


def test_every_page_is_in_the_navigation_once():
    pages = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    pages += [name.lower() for name in generate.ROOT_PAGES]
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/-]+\.md", text)) == sorted(pages)


def test_links_out_of_docs_lead_to_pages_of_the_site():
    text = "[a](../../SECURITY.md#x) [b](../reference/nets.md) [c](../../recipes/results) [d](#e)"
    assert generate.inside(text, "how-to/own-net.md") == (
        "[a](../security.md#x) [b](../reference/nets.md) c [d](#e)"
    )


def test_the_charts_of_the_results_are_drawn_from_the_committed_files():
    files = {}

    def image(name, content):
        files[name] = content.decode()
        return name

    assert "### `vgg_cifar100`" in generate.ladders("", image)
    generate.differences("", image)
    runs = (generate.ROOT / "recipes/results").glob("vgg_cifar100-step04-seed?.json")
    found = [json.loads(run.read_text(encoding="utf-8"))["measured"] for run in runs]
    values = [100 * each["valid_accuracy"] for each in found]
    drawn = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %, 3 seeds"
    assert f"<!-- {drawn} -->" in files["ladder-vgg_cifar100.svg"]  # matplotlib names its texts
    assert "<!-- mnist_cnn/one_cycle, test -->" in files["differences.svg"]

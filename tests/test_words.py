"""One name for one thing: in the pages, the docstrings, the sentences of the command line."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What we say, and what we do not: patterns, in any letter case unless they hold a capital.
WORDS = {
    "accuracy": ["acc"],
    "augmentation": ["data augmentations"],
    "batch": ["mini-?batch(es)?"],
    "batch norm": ["batch-norm", "batch normali[sz]ation"],  # BatchNorm is torch's class
    "data set": ["(?-i:data-?sets?)"],  # fastai has Datasets
    "DataLoaders": ["[Dd]ata ?loaders?"],
    "folder of the data": ["data dir(ectory)?", "data root"],
    "for example, that is, and so on": [r"e\.g\.", r"i\.e\.", r"etc\."],
    "gray, grayscale": ["grey(scale)?", "gr[ae]y-scale"],
    "LR finder": ["learning-rate finder", "lr-finder", "learning rate finder", "range test"],
    "net": ["neural net(work)?s?", "deep networks?", "convnets?", "CNNs?"],
    "pixels": ["px"],
    "recipe": ["config(uration)? files?", "experiment config(uration)?s?"],
    "run directory": ["run folder", "experiment director(y|ies)", "output director(y|ies)"],
    "setting": ["(?-i:hyper-?parameters?)"],
    "similar words of value": ["utili[sz]e[sd]?", "leverag(e|es|ing)", "simply", "easily"],
    "spread is the standard deviation; rates have lr_mult": ["discriminative (learning )?rates?"],
    "stage": ["training phases?"],
    "test-time augmentation, TTA": ["test time augmentation", "accuracy through views"],
    "Weights & Biases, W&B": ["Wandb", "WandB", "Weights and Biases"],
}


def texts():
    """Every text that a reader meets, with its place; code within it left out."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if page.name != "CHANGELOG.md":  # names what was renamed
            text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
            yield str(page.relative_to(ROOT)), text
    for file in [*(ROOT / "fastcv").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            place = f"{file.relative_to(ROOT)}: {getattr(node, 'name', '')}"
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield place, ast.get_docstring(node) or ""
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "Option",
                "Argument",
            ):
                yield (
                    place,
                    " ".join(
                        each.value.value
                        for each in node.keywords
                        if each.arg == "help" and isinstance(each.value, ast.Constant)
                    ),
                )


TEXTS = [(place, re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)) for place, text in texts()]


def found(patterns):
    for pattern in patterns:
        flags = 0 if re.search(r"[A-Z]", pattern) else re.IGNORECASE
        for place, text in TEXTS:
            for match in re.finditer(rf"(?<![\w./-]){pattern}(?![\w/-])", text, flags):
                around = text[max(0, match.start() - 30) : match.end() + 20]
                yield f"{place}: {' '.join(around.split())}"


@pytest.mark.parametrize("word", WORDS)
def test_one_thing_has_one_name(word):
    assert list(found(WORDS[word])) == [], f"say {word}"


def test_the_words_are_looked_for_where_readers_meet_them():
    places = " ".join(place for place, _ in TEXTS)
    for place in ("README.md", "docs/reference/recipe.md", "fastcv/cli.py", "recipes/digits.py"):
        assert place in places
    assert any("Folder for the runs." in text for _, text in TEXTS)  # an option's sentence

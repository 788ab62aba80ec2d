"""The recipes there are: listed without importing them, and loaded by name or by file."""

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list of recipes, read from a file's syntax alone.

    Args:
        name: "NAME" or "NAME/VARIANT".
        summary: the first line of the file's docstring.
        reported: the numbers its report gives, as written in the file.
    """

    name: str
    summary: str
    reported: dict[str, Any] = field(default_factory=dict)


def folder() -> Path:
    """Where the recipe files lie."""
    spec = importlib.util.find_spec("fastcv.recipes")
    return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """Every recipe file's name, in order."""
    return sorted(file.stem for file in folder().glob("*.py") if not file.stem.startswith("_"))


def entries() -> list[Entry]:
    """Every recipe and variant, read from the files without running them."""
    return [entry for name in names() for entry in read(folder() / f"{name}.py")]


def read(file: Path) -> list[Entry]:
    """Read the recipe and the variants that a file binds, without running it."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    bound = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    found = [Entry(name=file.stem, summary=summary, reported=_reported(bound.get("recipe"), bound))]
    for variant, value in _variants(bound.get("variants")):
        name = f"{file.stem}/{variant}"
        found.append(Entry(name=name, summary=summary, reported=_reported(value, bound)))
    return found


def _variants(node: ast.expr | None) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg:
                yield keyword.arg, keyword.value


def _reported(node: ast.expr | None, bound: dict[str, ast.expr]) -> dict[str, Any]:
    """The numbers of the `Reported(...)` that an expression's recipe carries."""
    while isinstance(node, ast.Name):
        node = bound.get(node.id)
    if not isinstance(node, ast.Call):
        return {}
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if "reported" in given:
        stated = given["reported"]
        while isinstance(stated, ast.Name):
            stated = bound.get(stated.id)
        if not isinstance(stated, ast.Call):
            return {}
        return {
            keyword.arg: keyword.value.value
            for keyword in stated.keywords
            if keyword.arg and isinstance(keyword.value, ast.Constant)
        }
    return _reported(node.args[0], bound) if node.args else {}  # replace(base, ...)


def headline(reported: dict[str, Any]) -> str:
    """The one number that stands for an experiment in a list: `test accuracy 91.47 % (003 ...)`."""
    for metric in ("test", "best_test", "valid", "best_valid", "train"):
        number = reported.get(f"{metric}_accuracy")
        if number is not None:
            return f"{metric.replace('_', ' ')} {number * 100:.2f} % (Report {reported['source']})"
    return f"no number (Report {reported['source']})" if "source" in reported else ""


def source_file(name: str) -> Path:
    """The file of a recipe, by its name without variant.

    Raises:
        ValueError: no such recipe; names the nearest.
    """
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        raise ValueError(f"no recipe is called {name!r}. Did you mean {nearest[0]!r}?")
    return folder() / f"{name}.py"


def split(reference: str) -> tuple[Path, str]:
    """Tell file and variant of "NAME", "NAME/VARIANT", "FILE.py" or "FILE.py/VARIANT"."""
    file, variant = reference, ""
    if ".py/" in reference:
        file, _, variant = reference.rpartition("/")
    if file.endswith(".py"):
        if not Path(file).is_file():
            raise ValueError(f"a recipe file must exist, {file!r} does not")
        return Path(file), variant
    name, _, variant = reference.partition("/")
    return source_file(name), variant


def find(reference: str) -> tuple[Path, str]:
    """Like `split`, and make sure that the variant is there, without importing the file.

    Raises:
        ValueError: no such recipe, file or variant; names the nearest.
    """
    file, variant = split(reference)
    if variant:
        known = [entry.name.partition("/")[2] for entry in read(file)[1:]]
        if variant not in known:
            nearest = difflib.get_close_matches(variant, known, n=1, cutoff=0)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else " It has none."
            raise ValueError(f"no variant of {file.stem!r} is called {variant!r}.{hint}")
    return file, variant


def load(reference: str) -> Any:
    """Import the one file that is asked for and return its `Recipe`.

    Args:
        reference: "NAME", "NAME/VARIANT", or a path to one's own file, with "/VARIANT" or not.

    Raises:
        ValueError: no such recipe, file or variant, or the file binds no recipe.
    """
    file, variant = find(reference)
    module = load_file(file)
    if not hasattr(module, "recipe"):
        raise ValueError(f"a recipe file must bind the name recipe, {str(file)!r} does not")
    return module.variants[variant] if variant else module.recipe


def load_file(file: Path) -> ModuleType:
    """Import a recipe file: one of fastcv's by its name, one's own under its file's name."""
    if file.resolve().parent == folder().resolve():
        return importlib.import_module(f"fastcv.recipes.{file.stem}")
    taken = sys.modules.get(file.stem)
    if (
        taken is not None
        and Path(getattr(taken, "__file__", None) or "").resolve() != file.resolve()
    ):
        raise ValueError(
            f"a recipe file must not have the name of an imported module, {file.stem!r} is one: "
            f"rename {str(file)!r}"
        )
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that what it defines can be found by its address
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module

"""The recipes there are: listed without importing them, and loaded by name or by file."""

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from fastcv.recipe import Recipe, Reported
from fastcv.recipe.addresses import modules
from fastcv.suggest import did_you_mean

REPORTED = frozenset(each.name for each in fields(Reported))
OWN = "fastcv_recipe_"  # before the names of modules made of files of one's own


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list of recipes, read from a file's syntax alone.

    Args:
        name: "NAME" or "NAME/VARIANT".
        summary: the first line of the file's docstring; of a variant, the line "NAME: ..." there.
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
    docstring = ast.get_docstring(tree) or ""
    summary = docstring.partition("\n")[0]
    reported: dict[str, dict[str, Any]] = {}
    variants = None
    for statement in tree.body:  # in order: a name may be bound anew, from its value before
        for target in statement.targets if isinstance(statement, ast.Assign) else ():
            if isinstance(target, ast.Name):
                reported[target.id] = _reported(statement.value, reported)
                variants = statement.value if target.id == "variants" else variants
    found = [Entry(name=file.stem, summary=summary, reported=reported.get("recipe", {}))]
    for variant, value in _variants(variants):
        name = f"{file.stem}/{variant}"
        own = re.search(rf"^(?:Variants)? +{re.escape(variant)}: (.+)$", docstring, re.MULTILINE)
        line = own[1] if own else summary
        found.append(Entry(name=name, summary=line, reported=_reported(value, reported)))
    return found


def _variants(node: ast.expr | None) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Call):  # named(one_cycle=...)
        for keyword in node.keywords:
            if keyword.arg:
                yield keyword.arg, keyword.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value


def _reported(node: ast.expr, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the `Reported(...)` that an expression is, or that its recipe carries.

    Args:
        node: the expression.
        known: the same of the names bound before it.
    """
    if isinstance(node, ast.Attribute) and node.attr == "reported":  # recipe.reported
        node = node.value
    if isinstance(node, ast.Name):
        return known.get(node.id, {})
    if not isinstance(node, ast.Call):
        return {}
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if "reported" in given:
        return _reported(given["reported"], known)
    base = _reported(node.args[0], known) if node.args else {}  # replace(base, ...)
    constants = (pair for pair in given.items() if isinstance(pair[1], ast.Constant))
    stated = {name: value.value for name, value in constants if name in REPORTED}
    return {**base, **stated}


def headline(entry: Entry) -> str:
    """The one number that stands for an experiment in a list: `test 91.47 % (Report 003 ...)`."""
    reported = entry.reported
    bar = "to beat: " if reported.get("to_beat") else ""
    for metric in ("test", "best_test", "valid", "best_valid", "train"):
        number = reported.get(f"{metric}_accuracy")
        if number is not None:
            name = metric.replace("_", " ")
            return f"{bar}{name} {round(100 * number, 4):g} % (Report {reported['source']})"
    return f"no number (Report {reported['source']})" if "source" in reported else ""


def source_file(name: str) -> Path:
    """The file of a recipe, by its name without variant.

    Raises:
        ValueError: no such recipe; names the nearest.
    """
    if name not in names():
        raise ValueError(f"no recipe is called {name!r}.{did_you_mean(name, names())}")
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
    name, slash, variant = reference.partition("/")
    if slash and not variant:
        raise ValueError(f"behind the slash a variant must be named, got {reference!r}")
    return source_file(name), variant


def _no_variant(file: Path, variant: str, known: list[str]) -> ValueError:
    hint = did_you_mean(variant, known)
    return ValueError(f"no variant of {file.stem!r} is called {variant!r}.{hint}")


def find(reference: str) -> tuple[Path, str]:
    """Like `split`, and make sure that a variant of ours is there, without importing the file.

    Raises:
        ValueError: no such recipe, file or variant; names the nearest.
    """
    file, variant = split(reference)
    if variant and _is_ours(file):
        known = [entry.name.partition("/")[2] for entry in read(file)[1:]]
        if variant not in known:
            raise _no_variant(file, variant, known)
    return file, variant


def get_recipe(reference: str) -> Recipe:
    """Import the one file that is asked for and return its `Recipe`.

    Args:
        reference: "NAME", "NAME/VARIANT", or a path to one's own file, with "/VARIANT" or not.

    Raises:
        ValueError: no such recipe, file or variant, or the file binds no recipe.
    """
    file, variant = find(reference)
    module = load_file(file)
    variants = getattr(module, "variants", {})
    if variant and variant not in variants:
        raise _no_variant(file, variant, list(variants))
    recipe = variants[variant] if variant else getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        what = f"variants[{variant!r}]" if variant else "the name recipe"
        raise ValueError(f"a recipe file must bind {what} to a Recipe, {str(file)!r} does not")
    return replace(recipe, name=f"{file.stem}/{variant}" if variant else file.stem)


def module_name(stem: str) -> str:
    """The name that a file of one's own is imported under: it hides no other module."""
    return OWN + re.sub(r"\W", "_", stem)


def own_modules(flat: Mapping[str, Any]) -> list[str]:
    """The modules of files of one's own that a flat recipe names a function or class of."""
    return sorted(each for each in modules(flat.values()) if each.startswith(OWN))


def _is_ours(file: Path) -> bool:
    return file.resolve().parent == folder().resolve()


def load_file(file: Path) -> ModuleType:
    """Import a recipe file.

    Raises:
        ValueError: it is not Python, or imports what is not there.
    """
    if _is_ours(file):
        return importlib.import_module(f"fastcv.recipes.{file.stem}")
    name = module_name(file.stem)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what it defines can be found by its address
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        del sys.modules[name]
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(
            f"a recipe file must be importable, {str(file)!r}{line}: {error}"
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module

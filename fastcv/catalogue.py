"""The recipes there are: listed without importing them, and loaded by name or by file."""

import ast
import glob
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

from fastcv.recipe import Recipe, Reported
from fastcv.recipe.addresses import modules, public_names
from fastcv.recipe.bounds import shown
from fastcv.suggest import did_you_mean

REPORTED = frozenset(each.name for each in fields(Reported))
OWN = "fastcv_recipe_"  # starts the module name of a recipe file that is not fastcv's
LISTED = ("test", "best_test", "valid", "best_valid", "train")  # the first that was reported


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list of recipes, read from a file's syntax alone."""

    name: str  # "NAME" or "NAME/VARIANT"
    summary: str  # the first line of the file's docstring; a variant's line under "Variants"
    reported: dict[str, Any]  # the numbers of its report, as written in the file

    @property
    def family(self) -> str:
        """The recipe's name, without the variant's."""
        return self.name.partition("/")[0]

    @property
    def variant(self) -> str:
        """The variant's name; empty for the recipe itself."""
        return self.name.partition("/")[2]


def folder() -> Path:
    """Return the folder of fastcv's recipe files."""
    spec = importlib.util.find_spec("fastcv.recipes")
    return Path(spec.submodule_search_locations[0])


def names() -> list[str]:
    """List the names of all recipe files, in order."""
    return sorted(file.stem for file in folder().glob("*.py") if not file.stem.startswith("_"))


def entries() -> list[Entry]:
    """Read every recipe and variant from the files, without running them."""
    return [entry for name in names() for entry in read(folder() / f"{name}.py")]


def matching(pattern: str) -> list[Entry]:
    """Select recipes and variants by a glob such as "*/one_cycle", or by a part of the name.

    Upper and lower case are the same. The exact name of a recipe selects it with its variants, and
    nothing else.

    Raises:
        ValueError: nothing matches; names the nearest.
    """
    found = entries()
    exact = [entry for entry in found if entry.family == pattern]
    lowered = pattern.lower()
    if not any(character in pattern for character in "*?["):
        lowered = f"*{lowered}*"
    matched = exact or [entry for entry in found if fnmatchcase(entry.name.lower(), lowered)]
    if not matched:
        raise ValueError(f"no recipe matches {pattern!r}.{did_you_mean(pattern, names())}")
    return matched


def completions(incomplete: str) -> list[str]:
    """List the recipes, variants and .py files whose reference starts so, for the shell."""
    found = [name for name in names() if name.startswith(incomplete)]
    found += glob.glob(f"{glob.escape(incomplete)}*.py")
    before, slash, _ = incomplete.rpartition("/")
    if slash and (before in names() or before.endswith(".py")):
        found = [before]
    if len(found) == 1:  # nothing is left to choose but the variant
        with suppress(OSError, SyntaxError, ValueError):
            found += [f"{found[0]}/{entry.variant}" for entry in read(split(found[0])[0])[1:]]
    return [each for each in found if each.startswith(incomplete)]


def read(file: Path) -> list[Entry]:
    """Read the recipe and the variants that a file binds, without running it."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    docstring = ast.get_docstring(tree) or ""
    summary = docstring.partition("\n")[0]
    reported: dict[str, dict[str, Any]] = {}
    variants = None
    for statement in tree.body:  # in order: a name may be bound again, from its former value
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
    if isinstance(node, ast.Call):  # named(recipe, one_cycle=...)
        for keyword in node.keywords:
            if keyword.arg:
                yield keyword.arg, keyword.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value


def _reported(node: ast.expr, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Read the numbers of a `Reported(...)`, or of the recipe that an expression makes.

    `known` has the numbers of each name that was bound before.
    """
    if isinstance(node, ast.Attribute) and node.attr == "reported":  # recipe.reported
        node = node.value
    if isinstance(node, ast.Name):
        return known.get(node.id, {})
    if not isinstance(node, ast.Call):
        return {}
    settings = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if "reported" in settings:
        return _reported(settings["reported"], known)
    base = _reported(node.args[0], known) if node.args else {}  # replace(base, ...)
    constants = (pair for pair in settings.items() if isinstance(pair[1], ast.Constant))
    return base | {name: value.value for name, value in constants if name in REPORTED}


def headline(entry: Entry, *, short: bool = False) -> str:
    """Return an experiment's most telling number: `test 91.47 % (Report 003, table 1)`.

    A short one leaves the source out, and marks a number to beat with a sign: `> 91.47 % test`.
    """
    reported = entry.reported
    source = f"(Report {reported.get('source')})"
    for metric in LISTED:
        number = reported.get(f"{metric}_accuracy")
        if number is not None:
            name, number = metric.replace("_", " "), f"{round(100 * number, 4):g} %"
            if short:
                return f"{'> ' if reported.get('to_beat') else ''}{number} {name}"
            return f"{'to beat: ' if reported.get('to_beat') else ''}{name} {number} {source}"
    return f"no number {source}" if "source" in reported and not short else ""


def source_file(name: str) -> Path:
    """Return the file of a recipe, by its name without a variant.

    Raises:
        ValueError: no such recipe; names the nearest.
    """
    if name not in names():
        raise ValueError(f"no recipe is called {name!r}.{did_you_mean(name, names())}")
    return folder() / f"{name}.py"


def split(reference: str) -> tuple[Path, str]:
    """Return file and variant of "NAME", "NAME/VARIANT", "FILE.py" or "FILE.py/VARIANT"."""
    file, variant = reference, ""
    if ".py/" in reference:
        file, _, variant = reference.rpartition("/")
    if file.endswith(".py"):
        if not Path(file).is_file():
            raise ValueError(f"a recipe file must exist, {file!r} does not")
        return Path(file), variant
    name, slash, variant = reference.partition("/")
    if slash and not variant:
        raise ValueError(f"a variant must follow the slash, got {reference!r}")
    return source_file(name), variant


def _no_variant(file: Path, variant: str, known: list[str]) -> ValueError:
    hint = did_you_mean(variant, known)
    return ValueError(f"no variant of {file.stem!r} is called {variant!r}.{hint}")


def find(reference: str) -> tuple[Path, str]:
    """Split a reference as `split` does, and check a variant of fastcv's, importing nothing.

    Raises:
        ValueError: no such recipe, file or variant; names the nearest.
    """
    file, variant = split(reference)
    if variant and _is_ours(file):
        known = [entry.variant for entry in read(file)[1:]]
        if variant not in known:
            raise _no_variant(file, variant, known)
    return file, variant


def get_recipe(reference: str) -> Recipe:
    """Return a recipe by its name or file; its name is the file's, and the variant's.

    Only that one file is imported.

    Args:
        reference: "NAME", "NAME/VARIANT", or the path of your own file, as "my_net.py" or
            "my_net.py/VARIANT".

    Raises:
        ValueError: no such recipe, file or variant, or the file binds no recipe.
    """
    file, variant = find(reference)
    module = load_file(file)
    variants = getattr(module, "variants", {})
    if not isinstance(variants, Mapping):
        raise ValueError(
            f"variants of a recipe file must map names to recipes, as named(recipe, ...) does, "
            f"{str(file)!r} has {shown(variants)}"
        )
    if variant and variant not in variants:
        raise _no_variant(file, variant, list(variants))
    recipe = variants[variant] if variant else getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        what = f"variants[{variant!r}]" if variant else "the name recipe"
        raise ValueError(f"a recipe file must bind {what} to a Recipe, {str(file)!r} does not")
    return replace(recipe, name=f"{file.stem}/{variant}" if variant else file.stem)


def module_name(stem: str) -> str:
    """Return the module name of a recipe file that is not fastcv's; it hides no other module."""
    return OWN + re.sub(r"\W", "_", stem)


def own_modules(flat: Mapping[str, Any]) -> list[str]:
    """List the recipe files' modules, fastcv's aside, whose functions a flat recipe names."""
    return sorted(each for each in modules(flat.values()) if each.startswith(OWN))


def _is_ours(file: Path) -> bool:
    return file.resolve().parent == folder().resolve()


def load_file(file: Path) -> ModuleType:
    """Import a recipe file.

    Raises:
        ValueError: it is not Python, or running it fails; names the line.
    """
    if _is_ours(file):
        return importlib.import_module(f"fastcv.recipes.{file.stem}")
    name = module_name(file.stem)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that an address can name what the file defines
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, Exception | SystemExit):  # Ctrl-C
            raise
        line = f", line {number}" if (number := _line(error, file)) else ""
        what = _mistake(error, vars(module))
        raise ValueError(
            f"a recipe file must be importable, {str(file)!r}{line}: {what}"
        ) from error
    return module


def _line(error: BaseException, file: Path) -> int | None:
    """Return the line of a recipe file that an error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    lines = [
        number
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(file)
    ]
    return lines[-1] if lines else None


def _mistake(error: BaseException, names: Mapping[str, Any]) -> str:
    """Say in one sentence what is wrong in a recipe file whose names so far are `names`."""
    text = " ".join(str(getattr(error, "msg", None) or error).split())
    known = [*names, *public_names()]
    if isinstance(error, NameError) and error.name:
        if found := public_names().get(error.name):
            room, _, name = found.partition(":")
            return f"{text}: add 'from {room} import {name}'"
        return f"{text}.{_nearest(error.name, known)}"
    if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):
        wanted = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", text)
        exported = getattr(sys.modules.get(wanted[2]), "__all__", ()) if wanted else ()
        return f"{wanted[0]}.{_nearest(wanted[1], exported)}" if wanted else text
    if isinstance(error, TypeError):
        return _misfit(text, names)
    if isinstance(error, ValueError | SyntaxError | ImportError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _misfit(text: str, names: Mapping[str, Any]) -> str:
    """Say which settings a class does not have, or needs, instead of Python's words."""
    made = re.match(r"(?:\w+\.)*(\w+)\.__init__\(\) (.*)", text)
    if made is None:
        return text
    kind, problem = made.groups()
    if unknown := re.match(r"got an unexpected keyword argument '(\w+)'", problem):
        found = names.get(kind) or (Recipe if kind == Recipe.__name__ else None)
        settings = [each.name for each in fields(found)] if is_dataclass(found) else []
        return f"{kind} has no setting {unknown[1]!r}.{_nearest(unknown[1], settings)}"
    if missing := re.match(r"missing \d+ required .*arguments?: (.*)", problem):
        return f"{kind} must be given {missing[1]}"
    if re.match(r"takes .*positional arguments? but .* given", problem):
        return f"{kind} takes its settings by name, as {kind}(name=value)"
    return text


def _nearest(name: str, known: Collection[str]) -> str:
    """Suggest the nearest known name, where one is near."""
    hint = did_you_mean(name, known)
    return hint if hint.startswith(" Did") else ""

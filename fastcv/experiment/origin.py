"""Where a recipe comes from: the file that defines it, and what was changed of it since."""

import sys
from pathlib import Path

from fastcv import catalogue
from fastcv.recipe.diff import diff
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Recipe


def defining_file(recipe: Recipe) -> str | None:
    """Return the user's file that is needed to build a recipe again; None if fastcv suffices."""
    # The recipe may have another name than its file.
    needed = catalogue.own_modules(flat(recipe))
    for name in (*needed, catalogue.module_name(recipe.name.partition("/")[0])):
        if module := sys.modules.get(name):
            return str(Path(module.__file__).resolve())
    return None


def changed(recipe: Recipe) -> dict[str, tuple[object, object]]:
    """Return the settings that differ from the recipe's file and decide the result.

    Returns:
        {key: (the file's, the recipe's)}; empty for a recipe that comes from no file.
    """
    name, _, variant = recipe.name.partition("/")
    own = sys.modules.get(catalogue.module_name(name))
    try:
        if own is None:
            filed = catalogue.get_recipe(recipe.name)
        else:
            filed = own.variants[variant] if variant else own.recipe
    except (ValueError, AttributeError, KeyError):  # made in a script, under its own name
        return {}
    return diff(flat(filed), flat(recipe))

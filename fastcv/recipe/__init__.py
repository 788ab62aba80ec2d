"""An experiment as one frozen value: read it, vary it, compare it with its report.

These are plain values; nothing here imports torch. A recipe file binds one `Recipe` to the name
`recipe`, and may bind `variants = named(recipe, ...)`.
"""

from dataclasses import replace

from fastcv.recipe.checks import Check, Checks, check, compare
from fastcv.recipe.diff import diff, same_experiment
from fastcv.recipe.flat import flat, unflat
from fastcv.recipe.override import override
from fastcv.recipe.values import Recipe, Reported, Step, named

__all__ = [
    "Check",
    "Checks",
    "Recipe",
    "Reported",
    "Step",
    "check",
    "compare",
    "diff",
    "flat",
    "named",
    "override",
    "replace",
    "same_experiment",
    "unflat",
]

"""An experiment as one frozen value: read it, vary it, run it, compare it with its report.

A recipe file binds one `Recipe` to the name `recipe`, and may bind `variants = named(...)`.

    from dataclasses import replace
    from fastcv.recipe import check, learner, train
    from fastcv.recipes.light_resnet_cifar10 import recipe

    learn = learner(recipe)               # a plain fastai Learner
    run = train(replace(recipe, seed=7))  # the whole experiment, written to run.path
    print(check(run))                     # reported | measured | within tolerance
"""

from fastcv.recipe.checks import Check, Checks, check, compare
from fastcv.recipe.flat import flat, override, unflat
from fastcv.recipe.values import METRICS, Recipe, Reported, named

from fastcv.recipe.training import learner, train  # isort: skip - it builds on the others

__all__ = [
    "METRICS",
    "Check",
    "Checks",
    "Recipe",
    "Reported",
    "check",
    "compare",
    "flat",
    "learner",
    "named",
    "override",
    "train",
    "unflat",
]

"""What a finished training leaves behind: numbers, figures and weights."""

import statistics
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from fastcv import files, interpret
from fastcv.experiment import directory
from fastcv.experiment.judge import draw_evaluation, write_tables
from fastcv.experiment.trained import describe
from fastcv.learning import weights
from fastcv.learning.learner import Learner
from fastcv.predict import evaluation
from fastcv.predict.evaluation import Predictions, average_precision, cross_entropies
from fastcv.predict.multi_label import fit_thresholds
from fastcv.predict.trained import NAME as MODEL
from fastcv.recipe.checks import compare
from fastcv.recipe.values import Recipe

TABLE_ROWS = 64  # predictions in W&B's table


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of a training, measured once and written into its run directory.

    Args:
        recipe: what was trained.
        learn: its Learner, with the final weights and the history.
        run: the directory to write into.
        smoke: whether it was a smoke run; then every figure says so.
    """

    recipe: Recipe
    learn: Learner
    run: directory.Run
    smoke: bool

    def measure(self) -> None:
        """Predict and measure, before anything is written; several ranks share the images."""
        with self.learn.epoch_lines.doing(f"predicting {self._images_to_predict:,} images"):
            self._parts  # noqa: B018
        self._measured  # noqa: B018

    def write(self, parameters: int) -> dict[str, Any]:
        """Write weights, figures, steps.csv and summary.json, and return the summary.

        Args:
            parameters: the net's number of parameters.
        """
        history, loaders = self.learn.history, self.learn.dls
        files.write_csv(self.run.path / "steps.csv", history.steps)
        weights.save(self.learn.model, self.run.path / directory.WEIGHTS)
        files.write_json(self.run.path / "classes.json", list(loaders.vocab))
        lines = self.learn.epoch_lines
        self._describe()
        measured = self._measured | {"parameters": parameters}
        with lines.doing("writing tables"):
            evaluation.save(self._parts, self.run.path / evaluation.TABLE)
            files.write_json(self.run.path / "split.json", self._split())
            write_tables(self.run.path, self.predicted)
        with lines.doing("drawing figures"):
            self._draw()
        reported = self.recipe.reported
        checks = compare(self.recipe.reported, measured)
        features = self.learn.frozen_features
        # Of the last stage: a head on stored features is a thousand times as fast as the whole net.
        rows = history.rows
        speeds = [row["images_per_second"] for row in rows if row["stage"] == rows[-1]["stage"]]
        summary = {
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "smoke": self.smoke,
            **measured,
            "epochs": len(rows),
            "seconds": sum(row["seconds"] for row in rows),
            "warmup_seconds": self.learn.stepper.warmup_seconds + features.seconds,
            "images_per_second": statistics.median(speeds) if speeds else None,
            "device": str(loaders.device),
            "precision": self.learn.precision.precision,
            "step": self.learn.stepper.used(self.learn) | features.used(),
            "learning_rates": self._learning_rates(),
            "images": [len(loader.dataset) for loader in loaders.loaders],
            "skipped_images": getattr(loaders, "skipped", 0),
            "source": reported.source if reported else None,
            "reported": reported.numbers() if reported else {},
            "verdicts": {} if self.smoke else {row.metric: row.verdict for row in checks},
        }
        files.write_json(self.run.path / "summary.json", summary)
        return summary

    @property
    def model(self) -> list[Path]:
        """The files of the trained model: its weights, its class names and its description."""
        names = (directory.WEIGHTS, "classes.json", MODEL)
        return [file for file in map(self.run.path.joinpath, names) if file.is_file()]

    def table(self) -> list[dict[str, Any]]:
        """Return predictions, evenly spaced over the images: image, classes, confidence, loss."""
        found = self.predicted
        count = min(TABLE_ROWS, len(found.targets))
        chosen = np.linspace(0, len(found.targets) - 1, count).astype(int).tolist()
        return [
            {
                "image": found.image(index),
                **dict(zip(("predicted", "true"), found.texts(index), strict=True)),
                "confidence": float(found.probabilities[index].max()),
                "loss": float(found.losses[index]),
            }
            for index in chosen
        ]

    @property
    def _images_to_predict(self) -> int:
        return sum(len(loader.dataset) for loader in self.learn.dls.loaders[1:])

    def _learning_rates(self) -> list[dict[str, Any]]:
        """Return each stage's learning rate, and the rule that chose it: the recipe, or a name."""
        trained = dict(self.learn.history.rates)
        rates = []
        for number, stage in enumerate(self.recipe.schedule):
            given = getattr(stage, "lr", None)
            set_there = isinstance(given, Real)  # as any stage may, also one that is no Stage
            if set_there or number in trained:
                rule = "recipe" if set_there else str(given)
                rates.append({"stage": number, "lr": trained.get(number, given), "rule": rule})
        return rates

    def _split(self) -> dict[str, Any]:
        """Return the names of each part's images, the fold (k, K), and the images' groups."""
        loaders = self.learn.dls
        parts = ("train", "test" if self._test_validates else "valid", "test")
        split = dict(zip(parts, getattr(loaders, "names", []), strict=False))
        fold, groups = getattr(self.recipe.data, "fold", None), getattr(loaders, "groups", {})
        return split | ({"fold": fold} if fold else {}) | ({"groups": groups} if groups else {})

    @property
    def _has_test(self) -> bool:
        return len(self.learn.dls.loaders) > 2

    @cached_property
    def predicted(self) -> Predictions:
        """Predictions of the test images, or without a test part of the validation images."""
        return self._parts[self.part]

    @property
    def part(self) -> str:
        """What `predicted` are the predictions of: "test" or "valid"; test images may validate."""
        return "test" if self._has_test or self._test_validates else "valid"

    @property
    def _test_validates(self) -> bool:
        return getattr(self.learn.dls, "valid_is_test", False)

    @cached_property
    def _with_training_loss(self) -> dict[str, Predictions]:
        """Predictions of the validation and the test images; the losses are the recipe's."""
        # The test set is read with the final weights alone: once here, and once for the recipe's
        # own metrics, where there are any.
        parts = {self.part: interpret.predictions(self.learn, ds_idx=2 if self._has_test else 1)}
        if self._has_test and len(self.learn.dls.valid):
            parts = {"valid": interpret.predictions(self.learn, ds_idx=1)} | parts
        return parts

    @cached_property
    def _parts(self) -> dict[str, Predictions]:
        """The same with the plain cross-entropy; of several labels an image, with thresholds."""
        parts = {
            part: replace(found, losses=cross_entropies(found.probabilities, found.targets))
            for part, found in self._with_training_loss.items()
        }
        if not self.predicts_several:
            return parts
        thresholds = (0.5,) * len(self.learn.dls.vocab)
        if valid := parts.get("valid"):  # test images that validate decide nothing
            thresholds = fit_thresholds(valid.probabilities, valid.targets)
        return {part: replace(found, thresholds=thresholds) for part, found in parts.items()}

    @property
    def predicts_several(self) -> bool:
        """Whether images have several labels."""
        return getattr(self.learn.dls, "multi_label", False)

    def _describe(self) -> None:
        """Write model.json, if the recipe's data and model say what belongs into it."""
        try:
            described = describe(
                self.recipe,
                self.learn.dls.vocab,
                precision=self.learn.precision.precision,
                thresholds=self.predicted.thresholds,
            )
            described.write(self.run.path)
        except ValueError as error:
            self.learn.epoch_lines.line(f"no {MODEL}: {error}")

    @cached_property
    def _measured(self) -> dict[str, Any]:
        """Measure the final weights on every split, and find the best validation accuracy."""
        rows, last = self.learn.history.rows, self.learn.history.final
        measured = {f"train_{name}": last.get(f"train_{name}") for name in ("loss", "accuracy")}
        evaluated = self._numbers(self.part)
        if self.recipe.metrics:
            evaluated = self._validated(2 if self._has_test else 1) | evaluated
        if self._has_test and len(self.learn.dls.valid):
            measured |= {f"valid_{name}": value for name, value in self._on_valid().items()}
        elif not self._has_test:
            measured |= {f"valid_{name}": value for name, value in evaluated.items()}
        validated = [row["valid_accuracy"] for row in rows if "valid_accuracy" in row]
        best = max(validated, default=None)
        measured["best_valid_accuracy"] = best
        if self._has_test:
            measured |= {f"test_{name}": value for name, value in evaluated.items()}
        elif self._test_validates:
            measured |= {f"test_{name}": value for name, value in evaluated.items()}
            measured["best_test_accuracy"] = best
        if "tta_accuracy" in last:
            measured["tta_accuracy"] = last["tta_accuracy"]
        return measured

    def _on_valid(self) -> dict[str, float]:
        found = self._numbers("valid")
        if not self.recipe.metrics:
            return found
        # Of several labels, the final thresholds count.
        return self._validated(1) | (found if self.predicts_several else {})

    def _numbers(self, part: str) -> dict[str, float]:
        """Return what is measured of every set of predictions, the loss as in training."""
        found, loss = self._parts[part], self._with_training_loss[part].losses.mean()
        several = {"average_precision": average_precision(found)} if found.multi_label else {}
        return {"loss": float(loss), "accuracy": found.accuracy, **several}

    def _validated(self, split: int) -> dict[str, float]:
        names = ("loss", *(metric.name for metric in self.learn.metrics))
        values = self.learn.validate(ds_idx=split)
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    def _draw(self) -> None:
        history, found = self.learn.history, self.predicted
        reported = self.recipe.reported.numbers() if self.recipe.reported else {}
        accuracies = {
            name.replace("_", " "): number
            for name, number in reported.items()
            if name.endswith("accuracy")
        }
        smoke = {"smoke": self.smoke}
        few = {"n": 6} if self.smoke else {}  # images take most of a figure's time
        drawn = {
            "curves": interpret.curves(
                history.rows, {} if self.smoke else accuracies, title=self.recipe.name, **smoke
            ),
            "schedule": interpret.schedule(history.steps, **smoke),
            "predictions": interpret.prediction_grid(found, seed=self.recipe.seed, **few, **smoke),
            "top_losses": interpret.top_losses(found, **few, **smoke),
        }
        image = found.image(0)
        if interpret.feature_maps(self.learn, image):  # a net without convolutions has none
            most = {"most": 4} if self.smoke else {}
            drawn["activations"] = interpret.activations(
                self.learn, image, picture=image, **most, **smoke
            )
        for number, (stage, found_there) in enumerate(history.found, 1):
            name = "lr_find" if number == 1 else f"lr_find_{number}"
            rates, losses, suggestions = found_there
            taken = getattr(self.recipe.schedule[stage], "lr", None)
            drawn[name] = interpret.lr_find(rates, losses, suggestions, taken=taken, **smoke)
        figures = self.run.path / "figures"
        for name, figure in self.learn.epoch_lines.over(list(drawn.items()), "drawing figures"):
            interpret.save(figure, figures / f"{name}.png")
        draw_evaluation(figures, found, smoke=self.smoke)

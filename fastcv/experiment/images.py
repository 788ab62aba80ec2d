"""The images of a run, and what it predicts of them."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fastcv.data.samples import Sample, labels_of, multi_hot
from fastcv.experiment.building import smoked
from fastcv.experiment.directory import Run
from fastcv.predict import evaluation
from fastcv.predict.evaluation import Predictions
from fastcv.predict.predictor import Prediction, Predictor
from fastcv.terminal import with_bar

PARTS = ("valid", "test")
FOLDS = "folds"  # the part of all images of a cross-validation, each predicted by its fold's net
FOLDS_FILE = "folds.json"


class RunImages:
    """The images that a run was validated and tested on, found again through its recipe.

    Args:
        run: the run.
        data: the folder of the data; the recipe's own if None.
    """

    def __init__(self, run: Run, data: Path | None = None):
        self.run, self._data = run, data

    @cached_property
    def listing(self) -> dict[str, list[tuple[str, Sample]]]:
        """Pairs of name and sample, of "train" and of "valid" or "test" or both.

        Raises:
            ValueError: the data is not there, or the recipe's `data` cannot list it.
        """
        recipe = self.run.recipe
        if self.run.started["smoke"]:
            recipe = smoked(recipe)
        if not hasattr(recipe.data, "listing"):
            raise ValueError(
                f"the images of a run must be listed by its recipe's data, "
                f"{type(recipe.data).__name__} has no listing(): take Images, or name image files"
            )
        data = recipe.data if self._data is None else replace(recipe.data, path=self._data)
        return data.listing()

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of "valid" and "test" the run kept predictions of; without any, which it has.

        Raises:
            ValueError: the predictions are damaged, or what `listing` raises.
        """
        file = self.run.path / evaluation.TABLE
        if file.is_file():
            kept = evaluation.parts(file)
            return tuple(each for each in PARTS if each in kept)
        return tuple(each for each in PARTS if self.listing.get(each))

    def listed(self, part: str) -> list[tuple[str, Sample]]:
        """Return the pairs of name and sample of a part.

        Raises:
            ValueError: it has no images.
        """
        if part in PARTS and self.listing.get(part):
            return self.listing[part]
        raise _no_part(part, [each for each in PARTS if self.listing.get(each)])

    @cached_property
    def _named(self) -> dict[str, Path | np.ndarray]:
        return {name: sample.image for part in self.listing.values() for name, sample in part}

    def __getitem__(self, name: str) -> Path | np.ndarray:
        """Return the file or the pixels of an image by its name in `Predictions.paths`.

        Raises:
            ValueError: the data has no such image.
        """
        try:
            return self._named[name]
        except KeyError:
            raise ValueError(
                f"the run's data must still hold its images, but has no {name!r}: "
                "name the folder it was trained on with --data"
            ) from None

    def predictions(
        self,
        predictor: Predictor,
        part: str | None = None,
        write: Callable[[str], None] = lambda line: None,
    ) -> tuple[str, Predictions]:
        """Return what the run predicts of a part; computed where it kept no predictions.

        Kept predictions were made before the net was calibrated. They are brought to its
        temperature, or made again if they are an older file's, rounded to float16.

        Args:
            predictor: of the run.
            part: "valid" or "test"; None takes the first of these that the run has. "folds" are the
                images of all folds of the cross-validation that the run belongs to, each predicted
                by the net that was not trained on it, before any was calibrated.
            write: takes a line if the images must be predicted, which takes a while.

        Returns:
            The part, and the predictions of its images.

        Raises:
            ValueError: the run has no such part.
        """
        if part == FOLDS:
            return part, evaluation.read(_of_all_folds(self.run) / evaluation.TABLE, part)
        if part is not None and part not in PARTS:
            raise ValueError(f"the split must be valid, test or folds, got {part!r}")
        there = self.parts
        part = part or next(iter(there), "valid")
        if part not in there:
            raise _no_part(part, there)
        file, temperature = self.run.path / evaluation.TABLE, predictor.model.temperature
        if file.is_file():
            if temperature == 1:
                return part, evaluation.read(file, part)
            if not evaluation.is_rounded(file, part):
                return part, evaluation.tempered(evaluation.read(file, part), temperature)
        listed = self.listed(part)
        write(f"predicting {len(listed):,} images")
        return part, predict(predictor, listed)


def _no_part(part: str, there: Iterable[str]) -> ValueError:
    has = " or ".join(there) or "none"
    return ValueError(f"the split must be one that the run has, {has}, got {part!r}")


def _of_all_folds(run: Run) -> Path:
    """Find the folder of the joined predictions of the cross-validation that a run belongs to.

    Raises:
        ValueError: there is none.
    """
    for file in sorted(run.path.parent.glob(f"*/{FOLDS_FILE}"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged file counts as none
            if run.path.name in json.loads(file.read_text(encoding="utf-8"))["runs"]:
                return file.parent
    raise ValueError(
        f"the split 'folds' needs a run of a finished cross-validation, {str(run.path)!r} is none: "
        "train one with fastcv recipe NAME --folds 5"
    )


def predict(predictor: Predictor, listed: list[tuple[str, Sample]]) -> Predictions:
    """Predict labeled images; files that cannot be read are left out.

    Raises:
        ValueError: a label is none of the net's classes.
    """
    truth = {label for _, sample in listed for label in labels_of(sample)}
    if unknown := sorted(truth - set(predictor.classes)):
        raise ValueError(f"labels must be classes of the net, {unknown[0]!r} is not")
    stream = predictor.stream(sample.image for _, sample in listed)
    stream = with_bar(stream, 1, len(listed), "predicting", line=False)
    read = [
        (name, sample, found.probabilities)
        for (name, sample), found in zip(listed, stream, strict=True)
        if isinstance(found, Prediction)
    ]
    names, samples, probabilities = zip(*read, strict=True) if read else ((), (), ())
    shape = (len(read), len(predictor.classes))
    probabilities = np.asarray(probabilities, dtype=np.float32).reshape(shape)
    hot = multi_hot(samples, predictor.classes)
    thresholds = predictor.model.thresholds
    targets = hot.argmax(axis=1) if thresholds is None else hot.astype(np.int64)
    losses = evaluation.cross_entropies(probabilities, targets)
    return Predictions(
        names, probabilities, targets, losses, predictor.classes, thresholds=thresholds
    )

"""Export what a run trained, compared with torch on real images of its data."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastcv import files
from fastcv.data import Images
from fastcv.data.samples import Sample, multi_hot
from fastcv.experiment import card
from fastcv.experiment.directory import Run
from fastcv.experiment.trained import load
from fastcv.predict import export as exported
from fastcv.predict.evaluation import matched, wilson
from fastcv.predict.multi_label import holds
from fastcv.predict.predictor import image_files
from fastcv.predict.trained import TrainedModel
from fastcv.terminal import doing, make_bar

IMAGES = 256  # to compare on, and to calibrate on


@dataclasses.dataclass(frozen=True)
class _Images:
    """Images to judge an export on.

    Attributes:
        labeled: with labels that the net knows; for the accuracy.
        calibration: for the ranges of activations; none of the labeled ones.
        all: to compare on, the labeled ones first.
        part: what the labeled ones are called.
        calibration_part: what those to calibrate on are called.
    """

    labeled: Sequence[Sample]
    calibration: Sequence[Sample]
    all: Sequence[Sample]
    part: str
    calibration_part: str


def export(
    run: str | PathLike,
    *,
    to: str = "onnx",
    int8: bool = False,
    out: Path | None = None,
    images: Path | None = None,
    trust: bool = False,
    write: Callable[[str], None] = print,
) -> Path:
    """Export what a run trained as a file that other programs run: bytes in, probabilities out.

    Beside it come resize.py, which makes the net's input of an image, export.json with what was
    measured, and in a run directory MODEL.md, the model card.

    Args:
        run: a run directory, or a folder that holds model.json and model.safetensors.
        to: "onnx" or "pt2" (torch.export).
        int8: whether to write model.int8.onnx as well, quantized, and to measure its accuracy.
        out: folder of the files; None is "export" in the run directory.
        images: folder of images to compare on, instead of the run's own; int8 needs them in
            folders named after their classes.
        trust: as of `Run`, for a run of your own recipe file.
        write: receives a line for each file.

    Returns:
        the exported file.

    Raises:
        ValueError: the run or its images cannot be read, an extra is missing, or the exported
            file does not answer as torch does; it is then removed.
    """
    if int8 and to != "onnx":
        raise ValueError(f"only an export to ONNX can be quantized, got --int8 with --to {to}")
    if to == "onnx":
        exported.onnx_modules()  # before anything that takes time
    run = Path(run)
    folder = run / card.FOLDER if out is None else out
    predictor = load(run, device="cpu", trust=trust)
    model = predictor.model
    found = _own(Run(run, trust=trust)) if images is None else _in_folder(images, model)
    if int8 and not (found.labeled and found.calibration):
        raise ValueError(
            f"--int8 needs two images or more in folders named after their classes, "
            f"{str(images)!r} has {len(found.labeled)}: leave --images out to take the run's own"
        )
    chosen = _spread(found.all, IMAGES)
    with doing("exporting, and comparing with torch", make_bar(sys.stderr)):
        compared = exported.export(predictor, folder, to=to, pixels=_decoded(chosen, model))
    file = folder / exported.FILES[to]
    measured = dataclasses.asdict(compared) | {"bytes": file.stat().st_size}
    write(
        f"{file}: {_size(file)}; on {compared.images} images a probability differs from torch's by "
        f"at most {compared.largest_difference:.1e}, {compared.equal_classes:.2%} equal classes"
    )
    _note(folder, file.name, measured)
    if int8:
        calibration = _spread(found.calibration, IMAGES)
        with doing("quantizing, and measuring the accuracy", make_bar(sys.stderr)):
            small = exported.quantize(folder, _decoded(calibration, model))
            before, after = _accuracies((file, small), found.labeled, model)
        total = len(found.labeled)
        low, high = wilson(round(after * total), total)
        write(
            f"{small}: {_size(small)}; accuracy on {total:,} {found.part} images {before:.2%} "
            f"before and {after:.2%} after quantization (95 % interval {low:.2%} to {high:.2%}), "
            f"calibrated on {len(calibration):,} {found.calibration_part} images"
        )
        quantized = {
            "calibration_images": len(calibration),
            "calibration_part": found.calibration_part,
            "images": total,
            "part": found.part,
            "accuracy_before": before,
            "accuracy_after": after,
            "bytes": small.stat().st_size,
        }
        _note(folder, small.name, quantized)
    elif to == "onnx":
        (folder / exported.INT8).unlink(missing_ok=True)  # of an older export
        _note(folder, exported.INT8, None)
    if (run / "recipe.json").is_file():
        card.write_card(Run(run, trust=trust))
        write(f"{run / card.NAME}")
    return file


def _own(run: Run) -> _Images:
    """List the images of a run's data, without decoding any."""
    if not (run.path / "recipe.json").is_file():
        raise ValueError(
            f"an export must be compared with torch on real images, {str(run.path)!r} has no "
            f"recipe.json that names its data: give --images FOLDER"
        )
    data = run.recipe.data
    if not isinstance(data, Images):
        raise ValueError(
            f"the run's data must be Images to be listed again, got {type(data).__name__}: "
            f"give --images FOLDER"
        )
    data = data.smoke() if run.started["smoke"] else data
    loaders = dataclasses.replace(data, cache="off")("cpu")
    train, valid, *test = (loader.items for loader in loaders.loaders)
    validates = len(valid) and not loaders.valid_is_test
    labeled = valid or test[0]
    return _Images(
        labeled=labeled,
        calibration=train,
        all=[*labeled, *train],
        part="validation" if validates else "test",
        calibration_part="training",
    )


def _in_folder(folder: Path, model: TrainedModel) -> _Images:
    """List the images below a folder; those in folders named after classes have labels."""
    paths = image_files(folder)
    if not paths:
        raise ValueError(f"--images must be a folder of images, {str(folder)!r} holds none")
    known, _ = matched(model.classes, sorted({path.parent.name for path in paths}))
    samples = [Sample(path, path.parent.name) for path in paths]
    labeled = [sample for sample in samples if sample.label in known]
    others = [sample for sample in samples if sample.label not in known]
    # Every second one calibrates, and the accuracy is measured on the rest.
    return _Images(
        labeled=labeled[::2],
        calibration=[*labeled[1::2], *others],
        all=[*labeled, *others],
        part="labeled",
        calibration_part="other",
    )


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Choose up to `most` samples, evenly spread: a set is often sorted by class."""
    places = np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int)
    return [samples[place] for place in places.tolist()]


def _decoded(samples: Sequence[Sample], model: TrainedModel) -> np.ndarray:
    return np.stack([model.decoding(sample.image) for sample in samples])


def _accuracies(
    exports: Sequence[Path], labeled: Sequence[Sample], model: TrainedModel
) -> list[float]:
    """Return the accuracy of some exported files on labeled images, which are decoded once."""
    runs = [exported.runner(file) for file in exports]
    right = np.zeros(len(runs))
    for first in range(0, len(labeled), exported.BATCH_SIZE):
        batch = labeled[first : first + exported.BATCH_SIZE]
        pixels = _decoded(batch, model)
        truth = multi_hot(batch, model.classes)
        for place, run in enumerate(runs):
            if model.thresholds is None:
                right[place] += (run(pixels).argmax(axis=1) == truth.argmax(axis=1)).sum()
            else:
                said = holds(run(pixels), model.thresholds)
                right[place] += (said == (truth > 0)).all(axis=1).sum()
    return (right / len(labeled)).tolist()


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.2f} MB"


def _note(folder: Path, name: str, measured: dict[str, Any] | None) -> None:
    """Write what was measured of a file into export.json; None takes the file's entry out."""
    file = folder / card.SUMMARY
    noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    noted.pop(name, None)
    files.write_json(file, noted | ({name: measured} if measured else {}))

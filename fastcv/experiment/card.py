"""The model card: what a run trained, on what, how good it is and how to use it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from fastcv import files
from fastcv.experiment.directory import Run
from fastcv.experiment.trained import trained_model
from fastcv.markdown import code, escaped, table
from fastcv.predict import evaluation
from fastcv.predict.export import FILES, INT8
from fastcv.predict.trained import TrainedModel
from fastcv.recipe.addresses import address, is_address

NAME = "MODEL.md"
FOLDER, SUMMARY = "export", "export.json"  # in a run directory; what was measured of each file
LICENSE = "unknown"  # Hugging Face's word for none stated
WEAKEST = 5  # classes
# Names of data sets on the Hugging Face Hub, by the name of their source.
HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
PARTS = {"valid": "validation", "test": "test"}
# What a reader of the card need not know, or must not: where somebody's files are.
_LEFT_OUT = (
    "name",
    "reported",
    "step",
    "optimizer.fused",
    "data.path",
    "data.source.path",
    "data.cache",
    "data.skip_bad",
)

_IMAGENET_TERMS = (
    "weights trained on ImageNet may be bound by its terms, which allow research that is not "
    "commercial"
)

_PYTHON = """\
from huggingface_hub import snapshot_download

import fastcv

predictor = fastcv.load(snapshot_download("{repository}"))
prediction = predictor("image.jpg")
print(prediction.{label}, prediction.top(5))
"""
_ONNX = """\
import json

import numpy as np
import onnxruntime

from resize import pixels  # resize.py, beside {file}

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes.json"])
batch = np.stack([pixels("image.jpg", {settings})])
(probabilities,) = session.run(None, {{"pixels": batch}})
print({print})
"""
_LIKELIEST = "classes[probabilities[0].argmax()]"
_LABELS = (
    "[name for name, share, least in zip(classes, probabilities[0], {thresholds})\n"
    "       if share >= least]"
)


def write_card(run: Run, **keywords: str) -> str:
    """Write the model card into a run directory as MODEL.md, and return its text."""
    text = card(run, **keywords)
    files.write_text(run.path / NAME, text)
    return text


def card(run: Run, *, license: str = LICENSE, repository: str = "USER/NAME") -> str:
    """Return the model card of a finished run, in Markdown with Hugging Face's front matter.

    Whatever comes from the run's files is set as text: it can neither end the front matter nor
    mark up the page. No folder of the machine that trained is named.

    Args:
        run: with its summary, and predictions.npz if there is one.
        license: an identifier of the Hugging Face Hub, such as "apache-2.0".
        repository: where the model is or will be on the Hub.

    Raises:
        ValueError: the run is not finished, or lacks a file.
    """
    if not run.summary:
        raise ValueError(
            f"a model card must be of a finished run, {str(run.path)!r} has no summary.json: "
            f"go on with it first: fastcv resume"
        )
    model = trained_model(run)
    source = _source(run)
    judged = _judged(run, model)
    front = _front(run, model, source, judged, " ".join(license.split()))
    use = {"repository": repository, "label": "labels" if model.thresholds else "label"}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escaped(model.name)}",
        _lead(run, model, source, license),
        "## Use",
        f"```python\n{_PYTHON.format(**use)}```",
        *_onnx_use(run, model),
        "## Results",
        table(("part", "images", "accuracy", "95 % interval", "loss"), map(_result_row, judged)),
        *_weakest(judged),
        "## Data",
        *_data(run, model, source),
        "## Training",
        table(("setting", "value"), ((code(k), code(v)) for k, v in _settings(run))),
        f"Weights at the start: {_origin(model)}",
        "## Environment",
        _environment(run),
        "## Limits",
        f"The net answers with one of its {len(model.classes)} classes whatever an image shows, "
        f"and its probabilities hold for images like those that it was trained on.",
    ]
    return "\n\n".join(parts) + "\n"


def _judged(run: Run, model: TrainedModel) -> list[dict[str, Any]]:
    """Return a row for each part that was evaluated: from the predictions, else the summary."""
    file, rows = run.path / evaluation.TABLE, []
    kept = evaluation.parts(file) if file.is_file() else ()
    summary = run.summary
    for part, images in _counts(summary).items():
        if part in kept:
            predicted = evaluation.read(file, part)  # before the net was calibrated
            if model.temperature != 1:
                predicted = evaluation.tempered(predicted, model.temperature)
            found = evaluation.evaluate(predicted)
            row = {
                "images": found.images,
                "accuracy": found.accuracy,
                "interval": found.interval,
                "loss": found.loss,
                "per_class": found.per_class,
            }
        elif summary.get(f"{part}_accuracy") is not None:
            accuracy = summary[f"{part}_accuracy"]
            row = {
                "images": images,
                "accuracy": accuracy,
                "interval": evaluation.wilson(round(accuracy * images), images),
                "loss": summary[f"{part}_loss"],
                "per_class": (),
            }
        else:
            continue
        rows.append({"part": PARTS[part], **row})
    return rows


def _counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return how many images each part has, but for the training images."""
    counts = dict(zip(PARTS, summary["images"][1:], strict=False))
    if len(counts) == 1 and summary.get("test_accuracy") is not None:  # the test images validated
        counts = {"test": counts["valid"]}
    return {part: images for part, images in counts.items() if images}


def _front(
    run: Run,
    model: TrainedModel,
    source: str,
    judged: list[dict[str, Any]],
    license: str,
) -> dict[str, Any]:
    """Return the front matter, as huggingface.co/docs/hub/model-cards has it."""
    front: dict[str, Any] = {
        "license": license,
        "library_name": "fastcv",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "fastcv", "fastai"],
    }
    if source in HUB:
        front["datasets"] = [HUB[source]]
    front["metrics"] = ["accuracy"]
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": source, "type": HUB.get(source, source), "split": row["part"]},
            "metrics": [{"type": "accuracy", "value": round(row["accuracy"], 6)}],
        }
        for row in judged
    ]
    if results:
        front["model-index"] = [{"name": model.name, "results": results}]
    return front


def _lead(run: Run, model: TrainedModel, source: str, license: str) -> str:
    net = _net(model)
    kind = "RGB" if model.channels == 3 else "gray"
    size = f"{model.size} x {model.size} pixels"
    smoke = " This was a smoke run: its numbers mean nothing." if run.summary["smoke"] else ""
    stated = "" if license != LICENSE else " No license has been stated for it."
    return (
        f"{code(net)} with {run.summary['parameters']:,} parameters, which sorts {kind} images of "
        f"{size} into {len(model.classes)} classes; trained on {code(source)} with fastcv "
        f"{escaped(model.fastcv)}.{smoke}{stated}"
    )


def _net(model: TrainedModel) -> str:
    """Return the name of the net: of timm's models the model's, with its tag."""
    arch = model.settings.get("arch", model.net)
    return arch if isinstance(arch, str) else address(arch).partition(":")[2]


def _onnx_use(run: Run, model: TrainedModel) -> Iterator[str]:
    folder = run.path / FOLDER
    if (folder / FILES["onnx"]).is_file():
        yield "Without fastcv and torch, with ONNX Runtime:"
        settings = {"side": model.resize, "channels": model.channels}
        settings |= {"upright": True} if model.upright else {}
        settings |= {"decode_size": model.decode_size} if model.decode_size else {}
        named = ", ".join(f"{key}={value}" for key, value in settings.items())
        shown = _LIKELIEST
        if model.thresholds is not None:
            shown = _LABELS.format(thresholds=[round(each, 4) for each in model.thresholds])
        said = _ONNX.format(file=FILES["onnx"], settings=named, print=shown)
        yield f"```python\n{said}```"
    if (folder / INT8).is_file() and (folder / SUMMARY).is_file():
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))[INT8]
        before, after = float(found["accuracy_before"]), float(found["accuracy_after"])
        yield (
            f"{code(INT8)} is the same, quantized to 8 bits: its accuracy on "
            f"{int(found['images']):,} {escaped(found['part'])} images is {after:.2%} instead of "
            f"{before:.2%}."
        )


def _result_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = row["interval"]
    return (
        row["part"],
        f"{row['images']:,}",
        f"{row['accuracy']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{row['loss']:.4f}",
    )


def _weakest(judged: list[dict[str, Any]]) -> Iterator[str]:
    """The weakest classes of the last part that has predictions: test if there is one."""
    for row in reversed(judged):
        seen = [each for each in row["per_class"] if each["support"]]
        worst = sorted(seen, key=lambda each: each["f1"])[:WEAKEST]
        if worst:
            yield f"The weakest classes on the {row['part']} images, by F1:"
            yield table(
                ("class", "F1", "precision", "recall", "images", "most confused with"),
                (
                    (
                        escaped(each["class"]),
                        *(f"{each[name]:.3f}" for name in ("f1", "precision", "recall")),
                        f"{each['support']:,}",
                        escaped(each["most_confused_with"]),
                    )
                    for each in worst
                ),
            )
            return


def _data(run: Run, model: TrainedModel, source: str) -> Iterator[str]:
    counts = {"training": run.summary["images"][0]}
    counts |= {PARTS[part]: images for part, images in _counts(run.summary).items()}
    parts = ", ".join(f"{images:,} {part}" for part, images in counts.items())
    hub = HUB.get(source)
    link = f" ([{hub}](https://huggingface.co/datasets/{hub}))" if hub else ""
    yield (
        f"{code(source)}{link}: {parts} images. The "
        f"shorter side of an image is resized to {model.resize} pixels, bilinear with "
        f"antialiasing, the middle {model.size} x {model.size} pixels are cut out and normalized "
        f"with mean {_numbers(model.mean)} and standard deviation "
        f"{_numbers(model.std)} of pixels in 0-1."
    )
    yield f"Classes, in order: {', '.join(map(escaped, model.classes))}."


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{each:g}" for each in values)


def _source(run: Run) -> str:
    """Return the name of the data set: its source's, or for image folders the folder's."""
    flat = run.started["flat"]
    source = str(flat.get("data.source", flat.get("data", "unknown")))
    name = source.partition(":")[2].removesuffix("()") if is_address(source) else source
    folder = flat.get("data.path") or flat.get("data.source.path")
    return last_part(str(folder)) if name == "ImageFolders" and folder else name


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what a reader would ask for: settings that are set, but for paths and speed."""
    for key, value in run.started["flat"].items():
        left_out = any(key == each or key.startswith(f"{each}.") for each in _LEFT_OUT)
        if left_out or value is None or value is False or value in ([], {}, ""):
            continue
        text = str(value)
        if is_address(text):
            text = text.partition(":")[2]
        elif isinstance(value, str):
            text = last_part(text)
        yield key, text


def last_part(path: str) -> str:
    """Return the last part of a path: the others are the trainer's own."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def _origin(model: TrainedModel) -> str:
    arch = model.settings.get("arch")
    if model.weights is None:
        return "random."
    stated = model.weights_license
    theirs = f"Their license is {code(stated)}" if stated else "Whoever made them has the license"
    if model.weights != last_part(model.weights) or arch is None or "." in model.weights:
        name = code(last_part(model.weights))
        return (
            f"the file {name}. {theirs}."
            if stated
            else f"the file {name}, whose license holds for them."
        )
    if isinstance(arch, str):
        return f"timm's {code(arch)}. {theirs}; {_IMAGENET_TERMS}."
    library, _, name = address(arch).partition(":")
    if library == "torchvision.models":
        return (
            f"torchvision's {code(model.weights)} of {code(name)}. Their license is "
            f"{code(stated or 'BSD-3-Clause')}; {_IMAGENET_TERMS}."
        )
    return f"{code(model.weights)} of {code(name)}, whose license holds for them."


def _environment(run: Run) -> str:
    found = run.environment
    packages = [f"{name} {version}" for name, version in found["packages"].items() if version]
    rows = {
        "device": found["device_name"],
        "precision": found["precision"],
        "python": found["python"],
        "platform": found["platform"],
        "packages": ", ".join(packages),
        "epochs": run.summary["epochs"],
        "training time": f"{run.summary['seconds']:,.0f} s",
        "seed": run.summary["seed"],
    }
    return table(("", ""), ((name, escaped(str(value))) for name, value in rows.items()))

"""A trained net as one file that other programs run: bytes in, probabilities out.

The graph holds the center crop, the normalization, the net, the temperature and the softmax. What
comes before, the resize, is shipped beside it: `resize_for_export`.
"""

import copy
import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcv import files
from fastcv.predict import resize_for_export
from fastcv.predict.multi_label import holds
from fastcv.predict.predictor import Predictor
from fastcv.predict.trained import NAME, TrainedModel
from fastcv.recipe.addresses import address

FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
INT8, RESIZE = "model.int8.onnx", "resize.py"
INPUT, OUTPUT = "pixels", "probabilities"
TOLERANCE = 1e-4  # of a probability
BATCH_SIZE = 32


class BytesToProbabilities(nn.Module):
    """A net in fp32 with all that surrounds it, but for the resize.

    Args:
        model: says how pixels become the net's input, and holds the temperature.
        net: is copied, so that the one given stays in its precision and on its device.

    Shape:
        pixels: (B, resize, resize, channels), uint8.
        returns: (B, classes), float32, rows sum to 1; of several labels an image, each label's.
    """

    def __init__(self, model: TrainedModel, net: nn.Module):
        super().__init__()
        self.net = copy.deepcopy(net).float().cpu().to(memory_format=torch.contiguous_format)
        self.first, self.size = round((model.resize - model.size) / 2), model.size
        self.temperature, self.several = model.temperature, model.thresholds is not None
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (model.mean, model.std))
        self.register_buffer("scale", (1 / (std * 255)).float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).float().view(1, -1, 1, 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the probabilities of a batch of images."""
        inside = slice(self.first, self.first + self.size)
        x = pixels[:, inside, inside].permute(0, 3, 1, 2)  # (B, channels, size, size)
        logits = self.net(x.to(torch.float32) * self.scale + self.shift)
        logits = logits / self.temperature
        return logits.sigmoid() if self.several else logits.softmax(dim=1)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far an exported file is from torch in fp32.

    Attributes:
        images: their number.
        largest_difference: of a probability, over all images and classes.
        equal_classes: fraction of images with the same likeliest class, or the same labels, 0-1.
    """

    images: int
    largest_difference: float
    equal_classes: float


def export(predictor: Predictor, folder: Path, *, to: str, pixels: np.ndarray) -> Comparison:
    """Write model.onnx or model.pt2 and resize.py, once the file is shown to answer as torch does.

    Args:
        predictor: whose net is exported.
        folder: receives the files; an older file of the same name stays if the new one fails.
        to: "onnx" or "pt2".
        pixels: (N, resize, resize, channels), uint8, real images to compare on.

    Raises:
        ValueError: no such format, its extra is not installed, the net cannot be exported, or a
            probability differs by more than 1e-4.
    """
    if to not in FILES:
        raise ValueError(f"to must be one of {', '.join(FILES)}, got {to!r}")
    if len(pixels) == 0:
        raise ValueError("an export must be compared with torch on real images, got none")
    modules = onnx_modules() if to == "onnx" else None
    files.make_folder(folder, "an export")
    file = folder / FILES[to]
    part = file.with_name(f".part-{file.name}")  # with its suffix, by which it is run
    graph = BytesToProbabilities(predictor.model, predictor.net)
    try:
        (_write_pt2 if modules is None else _write_onnx)(graph, predictor.model, part)
        found = compare(predictor, part, pixels)
        if not found.largest_difference <= TOLERANCE:  # nor may it be NaN
            raise ValueError(
                f"an exported net must answer as torch does to within {TOLERANCE:g}, but "
                f"{file.name} differs by {found.largest_difference:.2g} on {found.images} images "
                f"and was removed: try another format with --to"
            )
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    shutil.copyfile(resize_for_export.__file__, folder / RESIZE)
    return found


def compare(predictor: Predictor, file: Path, pixels: np.ndarray) -> Comparison:
    """Compare an exported file with torch in fp32, preprocessed as for validation.

    Shape:
        pixels: (N, resize, resize, channels), uint8.
    """
    model = dataclasses.replace(predictor.model, precision="fp32")
    net = copy.deepcopy(predictor.net).float().cpu()
    torch_fp32 = Predictor(model, net, torch.device("cpu"))
    run = runner(file)
    # Single images and whole batches: the batch is a free dimension.
    batches = [pixels[:1], *_batches(pixels[1:])]
    ours = np.concatenate([run(batch) for batch in batches])
    theirs = np.concatenate([torch_fp32.probabilities(batch) for batch in batches])
    if model.thresholds is None:
        same = ours.argmax(1) == theirs.argmax(1)
    else:
        same = (holds(ours, model.thresholds) == holds(theirs, model.thresholds)).all(axis=1)
    return Comparison(
        images=len(pixels),
        largest_difference=float(np.abs(ours - theirs).max()),
        equal_classes=float(same.mean()),
    )


def runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from pixels to probabilities that runs an exported file on the CPU."""
    if file.suffix == ".onnx":
        session = _session(file)
        return lambda pixels: session.run([OUTPUT], {INPUT: pixels})[0]
    program = torch.export.load(file).module()
    return lambda pixels: program(torch.tensor(pixels)).detach().numpy()


def quantize(folder: Path, pixels: np.ndarray) -> Path:
    """Write model.int8.onnx from the model.onnx of a folder, and return its path.

    Weights are quantized per channel and activations per tensor, by their smallest and largest
    values on some images. The normalization and the softmax stay in floats. Activations are
    unsigned, since most come from a ReLU, and weights take 7 of 8 bits: x86 processors without VNNI
    add two products of 8 bits up in 16, which overflow.

    Args:
        folder: holds model.onnx.
        pixels: (N, resize, resize, channels), uint8, images to calibrate on.
    """
    onnx, _ = onnx_modules()
    quantization = importlib.import_module("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter(_batches(pixels))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    source, file = folder / FILES["onnx"], folder / INT8
    prepared, part = folder / ".prepared.onnx", folder / f".part-{INT8}"
    try:
        shape_inference = importlib.import_module("onnxruntime.quantization.shape_inference")
        shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            part,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool"],
            nodes_to_exclude=_before_the_net(onnx.load(prepared)),
            activation_type=quantization.QuantType.QUInt8,
            per_channel=True,
            reduce_range=True,
        )
        _describe(part, {each.key: each.value for each in onnx.load(source).metadata_props})
        os.replace(part, file)
    finally:
        for each in (prepared, part):
            each.unlink(missing_ok=True)
    return file


def onnx_modules() -> tuple[ModuleType, ModuleType]:
    """Import onnx and onnxruntime.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        importlib.import_module("onnxscript")  # which torch's exporter needs
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ValueError(
            f"an export to ONNX needs the extra onnx: pip install 'fastcv[onnx]' ({error})"
        ) from error


def _write_onnx(graph: BytesToProbabilities, model: TrainedModel, file: Path) -> None:
    with _one_sentence(model):
        program = torch.onnx.export(
            graph,
            (_example(model),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        program.save(file, external_data=False)
    _describe(file, _texts(model))


def _write_pt2(graph: BytesToProbabilities, model: TrainedModel, file: Path) -> None:
    with _one_sentence(model):
        program = torch.export.export(
            graph, (_example(model),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, file, extra_files=_texts(model))


@contextmanager
def _one_sentence(model: TrainedModel) -> Iterator[None]:
    """Turn torch's pages on what it cannot trace into a sentence."""
    try:
        yield
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"a net must be traceable by torch.export, {address(model.net)} is not: "
            f"{str(cause).strip().partition(chr(10))[0]}"
        ) from error


def _example(model: TrainedModel) -> Tensor:
    """Two images: a batch of one would be traced as the only size there is."""
    return torch.zeros(2, model.resize, model.resize, model.channels, dtype=torch.uint8)


def _texts(model: TrainedModel) -> dict[str, str]:
    """What goes with the graph: the classes in order, and model.json."""
    classes = json.dumps(list(model.classes), ensure_ascii=False)
    return {"classes.json": classes, NAME: json.dumps(model.plain(), ensure_ascii=False)}


def _describe(file: Path, texts: dict[str, str]) -> None:
    """Put texts into the metadata of an ONNX file."""
    onnx, _ = onnx_modules()
    held = onnx.load(file)
    onnx.helper.set_model_props(held, texts)
    onnx.save(held, file)


def _before_the_net(onnx_model: Any) -> list[str]:
    """Return the names of the nodes before the first layer, which normalize the pixels."""
    names = []
    for node in onnx_model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            return names
        names.append(node.name)
    return names


def _session(file: Path) -> Any:
    _, ort = onnx_modules()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[first : first + BATCH_SIZE] for first in range(0, len(pixels), BATCH_SIZE))

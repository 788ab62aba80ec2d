"""model.json: the description of a trained net, with all that is needed to use it.

It is plain data beside `model.safetensors`: the net by its public path, the classes in order, and
how images become the net's input. Neither the recipe file nor the data nor fastai is needed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fastcv import __version__, files
from fastcv.data.decoding import Decoding
from fastcv.recipe.addresses import address, is_address, resolve

NAME, WEIGHTS = "model.json", "model.safetensors"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The description of a trained net, as model.json holds it.

    Args:
        name: of the recipe that trained it.
        net: what builds the net, called with `settings`; written by its public path.
        settings: keywords of `net`: plain data, and functions or classes by their public paths.
        classes: names, in the order of the logits.
        channels: 3 for RGB, 1 for gray.
        size: pixels of the net's input, height and width.
        resize: pixels of the shorter side, and of the square that is cut out of the middle before
            the middle `size` pixels of that are taken.
        mean: of each channel, pixels as fractions 0-1; one number serves every channel.
        std: of each channel, likewise.
        interpolation: of the resize; "bilinear" with antialiasing is the only one so far.
        upright: whether the orientation in a photo's EXIF data is applied.
        decode_size: pixels of a larger square that is made first, and resized to `resize`; None for
            none.
        precision: "fp32" or "bf16", in which the net was validated.
        temperature: the logits are divided by this before the softmax; 1 leaves them.
        thresholds: of several labels an image, the probability from which each label holds; the
            probabilities are then those of a sigmoid. None for one class an image.
        weights: the name of the weights that training began from; None for random ones.
        weights_license: of these, as their makers name it; None if nobody says.
        sha256: of the file of the weights.
        fastcv: version that wrote it.
    """

    name: str
    net: Callable[..., nn.Module]
    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    channels: int
    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    upright: bool = False
    decode_size: int | None = None
    precision: str = "fp32"
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None
    weights: str | None = None
    weights_license: str | None = None
    sha256: str = ""
    fastcv: str = field(default=__version__)

    @property
    def decoding(self) -> Decoding:
        """How an image becomes the square that the net's input is cut from."""
        via = self.decode_size
        return Decoding(side=self.resize, channels=self.channels, upright=self.upright, via=via)

    def write(self, folder: Path) -> None:
        """Write model.json into a folder whose model.safetensors is there already."""
        files.write_json(folder / NAME, self.plain() | {"sha256": sha256(folder / WEIGHTS)})

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data, as model.json has it."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        values["net"] = address(self.net)
        values["settings"] = {
            key: address(value) if callable(value) else value
            for key, value in self.settings.items()
        }
        return {"format": FORMAT, **values}

    @classmethod
    def read(cls, folder: Path, *, trust: bool = False) -> "TrainedModel":
        """Read model.json from a folder.

        Args:
            folder: a run directory, or any folder that holds one.
            trust: whether it may name anything that can be imported, such as a net of your own.

        Raises:
            ValueError: it is not there, is no such file, or names what a run may not name.
        """
        file = folder / NAME
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"a trained model must come with {NAME}, {str(file)!r} cannot be read: {error}"
            ) from error
        try:
            if values.pop("format") != FORMAT:
                raise ValueError(f"its format must be {FORMAT}: update fastcv")
            known = {each.name for each in dataclasses.fields(cls)}
            if unknown := sorted(set(values) - known):
                raise ValueError(f"it holds {', '.join(unknown)}, which no model has")
            values["net"] = resolve(values["net"], trust=trust)
            values["settings"] = {
                key: resolve(value, trust=trust) if is_address(value) else _as_tuples(value)
                for key, value in values["settings"].items()
            }
            for key in ("classes", "mean", "std"):
                values[key] = tuple(values[key])
            if values.get("thresholds") is not None:
                values["thresholds"] = tuple(map(float, values["thresholds"]))
                if len(values["thresholds"]) != len(values["classes"]):
                    raise ValueError("it must have a threshold for each class, or none")
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{str(file)!r} must describe a trained model: {said}") from error

    def build(self, folder: Path) -> nn.Module:
        """Build the net with the weights that lie in a folder, ready to predict.

        Raises:
            ValueError: the weights are missing, damaged, or another net's.
        """
        file = folder / WEIGHTS
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"a trained model must come with its weights, {str(file)!r} cannot be read: {error}"
            ) from error
        if self.sha256 and sha256(file) != self.sha256:
            raise ValueError(
                f"the weights must be those that {NAME} describes, but the SHA-256 sum of "
                f"{str(file)!r} differs: copy both files of one run"
            )
        try:
            net = self.net(**self.settings)
            net.load_state_dict(state)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the weights must be those of the net in {NAME}, {str(file)!r} does not fit: "
                f"{' '.join(str(error).split())}"
            ) from error
        return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def sha256(file: Path) -> str:
    """Return the SHA-256 sum of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(each) for each in value) if isinstance(value, list) else value

"""Save and load weights: torchvision's by name, and files without pickled objects.

Files are `.safetensors`, or `.pth` / `.pt` read by torch's weights-only reader. The "_orig_mod."
that torch.compile adds is removed from names.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn
from torchvision.models import get_model_weights

from fastcv import files
from fastcv.suggest import did_you_mean

_TORCH_FILES = (".pth", ".pt")


def save(model: nn.Module, path: Path | str) -> None:
    """Write the model's parameters and buffers as safetensors, whole or not at all.

    Tensors that share memory are written under each of their names, so that the file can be read
    without the model.
    """
    state = {
        _clean(key): value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    files.write_bytes(Path(path), serialized(state))  # `save_file` would make it its owner's alone


def load(model: nn.Module, path: Path | str) -> None:
    """Copy the weights of a file into `model`.

    Raises:
        ValueError: the file cannot be read, or its names or shapes are not the model's.
    """
    copy(read(path), model, source=f"the weights in '{path}'")


def copy(state: Mapping[str, Tensor], model: nn.Module, *, source: str) -> None:
    """Copy a state dict into `model`; names and shapes must match.

    BatchNorm's `num_batches_tracked` may be missing: old files lack it, and layers with a momentum
    do not use it.

    Args:
        state: tensors by name, without "_orig_mod."; of any type, on any device.
        model: receives the values.
        source: where `state` comes from, for the error message.

    Raises:
        ValueError: a name is missing, has another shape, or is not the model's.
    """
    wanted = {_clean(key): value for key, value in model.state_dict().items()}
    if misfit := first_misfit(state, wanted):
        raise ValueError(f"{source} must fit {type(model).__name__}: {misfit}")
    with torch.no_grad():
        for key, value in wanted.items():
            if key in state:
                value.copy_(state[key])


def named(arch: Callable[..., nn.Module], name: str) -> dict[str, Tensor]:
    """Return torchvision's weights of that name, from torch's cache or fetched and verified.

    Args:
        arch: a model builder of torchvision, such as `torchvision.models.resnet50`.
        name: such as "IMAGENET1K_V1" or "DEFAULT".

    Raises:
        ValueError: no such name, no network, a wrong checksum, or an unreadable file in the cache.
    """
    known = get_model_weights(arch).__members__
    net = getattr(arch, "__name__", repr(arch))
    if name not in known:
        raise ValueError(f"{net} has no weights '{name}'.{did_you_mean(name, known, cutoff=0.4)}")
    entry = known[name]
    try:
        # Also a file in torch's cache is read without unpickling objects.
        return entry.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"the weights '{name}' of {net} must come whole from {entry.url}, got "
            f"'{_first_line(error)}': give the path of a .pth or .safetensors file instead"
        ) from error


def read(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, on the CPU.

    If a checkpoint holds its weights under "model" or "state_dict", these are returned.

    Raises:
        ValueError: no such file, another kind of file, a damaged file, or one with other objects.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"there must be a weights file at '{path}', got none: check the path")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif path.suffix in _TORCH_FILES:
            state = torch_file(path)
        else:
            raise ValueError(
                f"a weights file must end in .safetensors, .pth or .pt, got '{path.name}'"
            )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' must be a whole file of plain tensors, got {unpickling(error)}: save "
            "model.state_dict() alone, best as .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' must be a whole file of plain tensors, got '{_first_line(error)}': "
            "fetch it or save it again"
        ) from error
    except ValueError:
        raise
    except Exception as error:  # whatever torch's reader meets in a hostile pickle
        raise ValueError(
            f"'{path}' must be a whole file of plain tensors, it cannot be read "
            f"({type(error).__name__}): fetch it or save it again"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    tensors = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )
    if not tensors:
        raise ValueError(
            f"'{path}' must hold tensors by name, got other objects: save model.state_dict()"
        )
    return {_clean(key): value for key, value in state.items()}


def metadata(path: Path | str) -> dict[str, str]:
    """Return what a safetensors file says of itself; nothing for a .pth file.

    Raises:
        ValueError: no such file, or a damaged one.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        return {}
    if not path.is_file():
        raise ValueError(f"there must be a weights file at '{path}', got none: check the path")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"'{path}' must be a whole file of plain tensors, got '{_first_line(error)}': "
            "fetch it or save it again"
        ) from error


def is_path(weights: Path | str) -> bool:
    """Return whether `weights` is the path of a file, and not a name of torchvision's or timm's."""
    return Path(weights).suffix in (".safetensors", *_TORCH_FILES) or len(Path(weights).parts) > 1


def _clean(key: str) -> str:
    return key.replace("_orig_mod.", "")


def first_misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return how a state dict differs from the wanted one in its names and shapes; None if not."""
    for key, value in wanted.items():
        if key not in state:
            if not key.endswith("num_batches_tracked"):
                return f"'{key}' is missing"
        elif state[key].shape != value.shape:
            got, needed = tuple(state[key].shape), tuple(value.shape)
            return f"'{key}' has shape {got} where {needed} is needed"
    return next((f"'{key}' is not one of its names" for key in state if key not in wanted), None)


def unpickling(error: pickle.UnpicklingError) -> str:
    """Say what a pickle holds beside plain data: torch's own words advise to read it unsafely."""
    found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    return f"also {found[1]}" if found else "other objects or damaged data"


def torch_file(path: Path) -> Any:
    """Load a file that torch wrote, onto the CPU, without unpickling objects.

    Raises:
        ValueError: bits of it have changed: torch itself does not compare the checksums.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise ValueError(f"'{path}' must be whole, but the checksum of its {bad} is wrong")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

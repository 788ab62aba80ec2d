"""The pretrained nets that torchvision and timm have, and which of their weights are here."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from torchvision.models import get_model_builder, get_model_weights, list_models

from fastcv.learning.backbones import import_timm, timm_cfg, timm_net
from fastcv.learning.origins import Origin, timm_origin, torchvision_origin
from fastcv.suggest import did_you_mean

BUILT = 30  # timm's models are built to count their parameters: 0.1 to 2 seconds each


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A net with pretrained weights, as `Pretrained(arch=..., weights=...)` takes it.

    Args:
        library: "torchvision" or "timm".
        arch: the net's name; timm's with the tag.
        weights: their name in torchvision, or timm's tag.
        parameters: how many the net has, with its head for the makers' classes; None if it was not
            counted.
        size: height and width of the images that the weights were trained or tested on, pixels.
        here: whether the weights lie in the cache of torch or of huggingface_hub.
        origin: their license, and the statistics of their images.
    """

    library: str
    arch: str
    weights: str
    parameters: int | None
    size: int
    here: bool
    origin: Origin


def available(pattern: str | None = None) -> list[Weights]:
    """List pretrained nets by part of their name, or by a glob such as "convnext*in12k*".

    Without a pattern these are torchvision's. Of timm's, parameters are counted where at most
    thirty match. Nothing is fetched.

    Raises:
        ValueError: nothing matches; names the nearest.
    """
    wanted = (pattern or "").lower()
    glob = wanted if any(character in wanted for character in "*?[") else f"*{wanted}*"
    found = [
        each for each in _torchvision() if fnmatchcase(f"{each.arch}.{each.weights}".lower(), glob)
    ]
    if pattern is not None and has_timm():
        names = [
            name for name in import_timm().list_pretrained() if fnmatchcase(name.lower(), glob)
        ]
        found += [_timm(name, counted=len(names) <= BUILT) for name in names]
    if not found:
        known = list_models(module=torchvision.models)
        if has_timm():
            known = sorted({*known, *import_timm().list_models()})
        near = did_you_mean(wanted.partition(".")[0], known)
        raise ValueError(f"no pretrained net matches {pattern!r}.{near if len(near) < 200 else ''}")
    return found


def has_timm() -> bool:
    """Whether timm is installed; it is not imported."""
    return find_spec("timm") is not None


def _torchvision() -> Iterator[Weights]:
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in list_models(module=torchvision.models):
        for entry in get_model_weights(name):
            yield Weights(
                library="torchvision",
                arch=name,
                weights=entry.name,
                parameters=entry.meta["num_params"],
                size=entry.transforms().crop_size[0],
                here=(cache / entry.url.rpartition("/")[2]).is_file(),
                origin=torchvision_origin(get_model_builder(name), entry.name),
            )


def _timm(name: str, *, counted: bool) -> Weights:
    cfg = timm_cfg(name)
    return Weights(
        library="timm",
        arch=name,
        weights=cfg.tag or "DEFAULT",
        parameters=_count(name, cfg.num_classes) if counted else None,
        size=cfg.input_size[-1],
        here=_in_hub_cache(cfg.hf_hub_id, cfg.hf_hub_filename),
        origin=timm_origin(name, cfg.tag or "DEFAULT"),
    )


def _count(name: str, classes: int) -> int | None:
    """Count a model's parameters without memory for them; None where it cannot be built so."""
    try:
        with torch.device("meta"):
            net = timm_net(name, classes=classes)
    except (NotImplementedError, ValueError):
        return None
    return sum(each.numel() for each in net.parameters())


def _in_hub_cache(repository: str | None, file: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    if repository is None:
        return False
    repository, _, revision = repository.partition("@")
    names = (file,) if file else ("model.safetensors", "pytorch_model.bin")
    found = (try_to_load_from_cache(repository, each, revision=revision or None) for each in names)
    return any(isinstance(each, str) for each in found)

"""Where pretrained weights come from: their license, and the images that they were trained on.

No weights are fetched and no net is built to say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torchvision.models import get_model_weights

from fastcv.learning import weights as weight_files
from fastcv.learning.backbones import fixed_size_of, import_timm, split_name, timm_cfg, todays
from fastcv.suggest import did_you_mean

_TOLERANCE = 0.003  # statistics are often printed with three digits; 127/255 is also called 0.5
_TORCHVISION = "BSD-3-Clause"
_SWAG = "cc-by-nc-4.0"  # github.com/facebookresearch/SWAG/blob/main/LICENSE, as their meta says
_DESCRIPTION = "model.json"  # beside the weights of a run of ours


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Pretrained weights: who they are, and which images they expect.

    Args:
        name: of the weights, with the name of their net, or of their file.
        license: as their makers name it; None if nobody says.
        mean: of each channel of the images they expect, pixels in 0-1; None if nobody says.
        std: of each channel, likewise.
        size: height and width of the images, pixels, where the net takes no others.
        interpolation: with which images were resized, such as "bicubic"; None if nobody says.
        renamed: an older name by which the recipe calls them, if it does.
    """

    name: str
    license: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    interpolation: str | None = None
    renamed: str | None = None

    def lines(self) -> list[str]:
        """Return what is said of the weights when a training begins."""
        stated = self.license or "not stated; whoever made the file knows"
        said = [f"weights: {self.name}; license: {stated}"]
        if "nc" in stated.lower().split("-"):
            said.append("that license allows no commercial use, neither of what is trained from it")
        if self.renamed:
            said.append(f"timm calls {self.renamed} {self.name.partition(' ')[2]} today")
        if self.interpolation not in (None, "bilinear"):
            said.append(
                f"they were trained on images resized {self.interpolation}; fastcv resizes bilinear"
            )
        return said

    def check_size(self, size: int) -> None:
        """Refuse images of another size than a net of one fixed size takes.

        Args:
            size: height and width, pixels.

        Raises:
            ValueError: with the line that sets it.
        """
        if self.size not in (None, size):
            raise ValueError(
                f"{self.name} takes images of {self.size} pixels alone, the recipe has size={size}:"
                f" set size={self.size} in its data"
            )

    def contradiction(self, mean: Sequence[float], std: Sequence[float]) -> str | None:
        """Say how images differ from those that the weights expect, and what sets that right.

        Args:
            mean: of each channel, or one for all, pixels in 0-1; 0 leaves them as they are.
            std: likewise; 1 leaves them as they are.

        Returns:
            None where they do not differ, where nobody says what the weights expect, and for gray
            images: the weights' statistics are of three colors.
        """
        if self.mean is None or self.std is None:
            return None
        if _close(mean, self.mean) and _close(std, self.std):
            return None
        return (
            f"{self.name} expects images of other statistics than the recipe's mean "
            f"{_numbers(mean)} and std {_numbers(std)}: set "
            f"normalize=Normalize(mean=({_numbers(self.mean)}), std=({_numbers(self.std)})) in its "
            f"data"
        )


def torchvision_origin(arch: Callable[..., nn.Module], name: str) -> Origin | None:
    """Return the origin of torchvision's weights of that name; None if it has none such."""
    try:
        known = get_model_weights(arch).__members__
    except ValueError:  # a function of somebody's own
        return None
    if name not in known:
        return None
    entry = known[name]
    preset = entry.transforms()
    return Origin(
        name=f"torchvision's {entry.name} of {arch.__name__}",
        license=_SWAG if "SWAG" in entry.name else _TORCHVISION,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=preset.crop_size[0] if fixed_size_of(arch) else None,
        interpolation=preset.interpolation.value,
    )


def timm_origin(arch: str, tag: str) -> Origin:
    """Return the origin of a tag of timm's.

    Args:
        arch: a model of timm, with the tag or without.
        tag: its tag, or "DEFAULT".

    Raises:
        ValueError: timm is not installed, or has no such model or weights.
    """
    full = tagged(arch, tag)
    cfg = timm_cfg(full)
    return Origin(
        name=f"timm's {full}",
        license=cfg.license,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        size=cfg.input_size[-1] if cfg.fixed_input_size else None,
        interpolation=cfg.interpolation,
        renamed=None if split_name(arch)[0] == split_name(full)[0] else arch,
    )


def file_origin(path: Path | str, arch: Callable[..., nn.Module] | str) -> Origin:
    """Return the origin of a file of weights, from what it says itself and what timm says.

    A safetensors file may say its "mean", "std" and "license" in its metadata. Of a net of timm's,
    timm's values for it fill in, but not for the file of a run of ours, which model.json describes.

    Raises:
        ValueError: no such file, a damaged one, or no such model of timm.
    """
    path = Path(path).expanduser()
    said = weight_files.metadata(path)
    found = {"mean": _read(said.get("mean")), "std": _read(said.get("std"))}
    license = said.get("license") or said.get("source")
    known = {}
    if isinstance(arch, str) and not (path.parent / _DESCRIPTION).is_file():
        cfg = timm_cfg(todays(arch))
        if cfg is not None:
            known = {"mean": tuple(cfg.mean), "std": tuple(cfg.std)}
            known["size"] = cfg.input_size[-1] if cfg.fixed_input_size else None
    stated = {key: value for key, value in found.items() if value is not None}
    return Origin(name=f"the file {path.name}", license=license, **(known | stated))


def tagged(arch: str, tag: str) -> str:
    """Return a model's name in timm, today's, with the tag of its weights.

    Raises:
        ValueError: timm is not installed, has no such model or weights, or the name has another
            tag.
    """
    full = todays(arch)
    name, own = split_name(full)
    if tag == "DEFAULT":
        cfg = timm_cfg(full)
        own = own or (cfg and cfg.tag) or ""
        tag = own
    if own and tag != own and "." in full:
        raise ValueError(
            f"arch and weights must name the same tag, got {arch!r} and {tag!r}: set "
            f"weights={own!r}"
        )
    full = f"{name}.{tag}" if tag else name
    cfg = timm_cfg(full)
    if cfg is None or not cfg.has_weights:
        tags = [split_name(each)[1] for each in import_timm().list_pretrained(f"{name}.*")]
        raise ValueError(
            f"timm's {name!r} has no weights {tag!r}.{did_you_mean(tag, tags)} weights=None trains "
            f"from random ones"
        )
    return full


def _close(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    ours = tuple(ours) * (len(theirs) if len(ours) == 1 else 1)
    return len(ours) == len(theirs) and all(
        abs(a - b) <= _TOLERANCE for a, b in zip(ours, theirs, strict=True)
    )


def _read(text: str | None) -> tuple[float, ...] | None:
    """Read numbers between spaces or commas; None if it is anything else."""
    try:
        return (
            tuple(float(each) for each in (text or "").strip("[]()").replace(",", " ").split())
            or None
        )
    except ValueError:
        return None


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{round(each, 4):g}" for each in values)

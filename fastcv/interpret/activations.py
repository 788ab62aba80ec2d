"""Feature maps: the outputs of a net's layers for one image."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastcv.interpret.style import DPI, GRAY, INK, LABEL, blank

if TYPE_CHECKING:
    from fastai.learner import Learner
    from torch import nn

MOST_LAYERS = 16
COLUMNS = 4
MOST_MAPS = 64  # of a layer
SIDE = 264  # pixels of a panel: eight maps of 32, which 16, 8, 4, 2 and 1 divide, and their gaps
CAPTION_SIZE = 7.2  # points
# inches
PANEL, BETWEEN, PICTURE, CAPTION, MARGIN, HEAD = SIDE / DPI, 0.14, 1.1, 0.4, 0.12, 0.4


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """One layer's output for one image.

    Args:
        layer: its name within the net and its class: "layer1.0 BasicBlock".
        maps: (C, H, W), float32, a map for each channel.
    """

    layer: str
    maps: np.ndarray

    @property
    def blank(self) -> int:
        """How many maps are zero everywhere, as channels that this image does not activate."""
        return int((self.maps == 0).all(axis=(1, 2)).sum())


def feature_maps(
    net: "nn.Module | Learner", image: Any, *, most: int | None = MOST_LAYERS
) -> list[FeatureMaps]:
    """Run a net on an image and return the output of its layers, in the order they run.

    Layers are the net's children; an `nn.Sequential` is replaced by its own children. Of a
    torchvision ResNet these are conv1, bn1, relu, maxpool and each residual block. Layers whose
    output is not a map are left out, as are those that change nothing in evaluation or only
    average a map; none may be left.

    The net runs in evaluation mode, without a gradient; its mode and its hooks are restored.

    Args:
        net: a net, on any device, or the Learner that holds it.
        image: for a net its input, (C, H, W) or (1, C, H, W); for a Learner anything that its
            `dls.test_dl` takes: a path, pixels (H, W, C), a Pillow image.
        most: layers to return, None for all. If there are more, convolutions and norms are left
            out first, then others, evenly spaced.
    """
    import torch  # heavy; the other figures are drawn without it
    from torch import nn

    if hasattr(net, "dls"):
        batch = net.dls.test_dl([image], num_workers=0).one_batch()
        net, image = net.model, batch[0]
    x = image.as_subclass(torch.Tensor)
    x = x[None] if x.ndim == 3 else x[:1]
    silent = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.AdaptiveAvgPool2d)
    plain = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)
    found: list[tuple[FeatureMaps, bool]] = []

    def remember(name: str, module: "nn.Module", inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            # A copy: the ReLU that follows may work in place.
            maps = output[0].detach().as_subclass(torch.Tensor).float().cpu().numpy().copy()
            layer = FeatureMaps(f"{name} {type(module).__name__}", maps)
            found.append((layer, isinstance(module, plain)))

    hooks = [
        module.register_forward_hook(partial(remember, name))
        for name, module in _layers(net, nn.Sequential)
        if not isinstance(module, silent)
    ]
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            # Not net(x): a compiled net would not call the hooks of its layers.
            net.forward(x.to(next(net.parameters(), x).device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    if most is not None and len(found) > most:
        found = [each for each in found if not each[1]] or found
    if most is not None and len(found) > most:
        chosen = np.linspace(0, len(found) - 1, most).round().astype(int)
        found = [found[index] for index in chosen]
    return [maps for maps, _ in found]


def _layers(net: "nn.Module", chain: type, prefix: str = "") -> Iterator[tuple[str, "nn.Module"]]:
    for name, child in net.named_children():
        if type(child) is chain:
            yield from _layers(child, chain, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def activations(
    net: "nn.Module | Learner",
    image: Any,
    *,
    picture: Any = None,
    most: int = MOST_LAYERS,
    title: str = "Feature maps",
    smoke: bool = False,
) -> Figure:
    """Draw the outputs of a net's layers for an image: a panel a layer, with its first 64 maps.

    Net, image and `most` are as for `feature_maps`; `picture` is an image for Pillow or matplotlib
    to show beside the maps. Each layer has its own scale, from black, its lowest value, to white,
    its highest. Maps that are zero everywhere are counted as blank.

    Raises:
        ValueError: no layer's output is a map.
    """
    found = feature_maps(net, image, most=most)
    if not found:
        raise ValueError(
            f"a net must have layers whose output is a map (C, H, W), {type(net).__name__} has "
            "none: draw a convolutional net"
        )
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    beside = 0 if picture is None else PICTURE + BETWEEN
    foot = 0.3 if smoke else 0.0
    # At least two panels wide, so that the title fits over a single one.
    width = 2 * MARGIN + beside + max(columns, 2) * (PANEL + BETWEEN) - BETWEEN
    height = HEAD + rows * (CAPTION + PANEL + BETWEEN) + foot
    title = f"{title}, each layer on its own scale: black is lowest, white highest"
    figure = blank(title, height=height, width=width, smoke=smoke)
    figure.set_layout_engine("none")

    def panel(
        left: float, row: int, pixels: np.ndarray, name: str, pad: float, side: float, **look: Any
    ) -> Axes:
        """Show each of `pixels` as one pixel of the figure, if `side` allows, under a name."""
        size = np.array(pixels.shape[1::-1]) / DPI
        size = size / max(1, *(size / side))
        top = height - HEAD - CAPTION - row * (CAPTION + PANEL + BETWEEN)
        bottom = top - size[1]
        box = (left / width, bottom / height, size[0] / width, size[1] / height)
        axes = figure.add_axes(box)
        axes.imshow(pixels, aspect="auto", **look)
        axes.set_axis_off()
        axes.set_title(name, loc="left", fontsize=LABEL, color=INK, pad=pad, parse_math=False)
        return axes

    if picture is not None:
        pixels = np.asarray(picture)
        enlarged = max(1, round(PICTURE * DPI) // max(pixels.shape[:2]))
        pixels = pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
        limits = {"vmin": 0, "vmax": 255} if pixels.dtype == np.uint8 else {}
        panel(MARGIN, 0, pixels, "the image", pad=4, side=PICTURE, cmap="gray", **limits)
    for place, each in enumerate(found):
        row, column = divmod(place, columns)
        pixels = mosaic(each.maps[:MOST_MAPS])
        left = MARGIN + beside + column * (PANEL + BETWEEN)
        axes = panel(left, row, pixels, each.layer, pad=14, side=PANEL, cmap="magma")
        axes.annotate(
            _caption(each), (0, 1), xytext=(0, 4), xycoords="axes fraction",
            textcoords="offset points", fontsize=CAPTION_SIZE, color=GRAY,
        )  # fmt: skip
    return figure


def _caption(found: FeatureMaps) -> str:
    count, height, width = found.maps.shape
    caption = f"{count} maps of {height} x {width}"
    caption += f", the first {MOST_MAPS}" if count > MOST_MAPS else ""
    return caption + (f"; {found.blank} blank" if found.blank else "")


def mosaic(maps: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Lay maps out in rows as a square, with gaps of one pixel.

    Args:
        maps: (C, H, W).
        side: the square's largest side, in pixels; maps are enlarged to it by a whole factor.

    Returns:
        (rows, columns) of pixels, NaN in the gaps and after the last map.
    """
    count, height, width = maps.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    enlarged = max(1, (side // columns - 1) // max(height, width))
    height, width = height * enlarged + 1, width * enlarged + 1
    laid = np.full((rows * height, columns * width), np.nan, dtype=np.float32)
    for place, each in enumerate(maps.repeat(enlarged, axis=1).repeat(enlarged, axis=2)):
        top, left = height * (place // columns), width * (place % columns)
        laid[top : top + height - 1, left : left + width - 1] = each
    return laid[:-1, :-1]

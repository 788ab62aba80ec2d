"""Nets of torchvision and timm with a head for other classes, and their layers in groups.

No fastai here: what is built is described by public names and plain settings, and is built again
from these where a trained run is loaded.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models import list_models

from fastcv.suggest import did_you_mean

TIMM = "pip install 'fastcv[timm]'"
MOST_GROUPS = 12
_FEWEST_PARTS = 6  # a ResNet has seven
# These change their input, which the weights of ImageNet need; their auxiliary heads go.
_INCEPTIONS = ("googlenet", "inception_v3")


def torchvision_net(
    arch: Callable[..., nn.Module],
    *,
    classes: int,
    channels: int = 3,
    size: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a classification net of torchvision with random weights and its own head.

    Args:
        arch: one of torchvision's builders, or a function that is called as they are.
        classes: number of logits.
        channels: 3, or 1 for a first convolution of one channel.
        size: height and width of the images, pixels; nets of one fixed size are built for it. None
            leaves it to the net.
        dropout: fraction of the features dropped before the last layer, 0 to 1, beside what the net
            drops itself; 0 adds no layer.

    Raises:
        ValueError: `arch` builds no classification net, or the net cannot take such images.
    """
    name = name_of(arch)
    _check_channels(name, channels)
    if not _classifies(arch):
        raise ValueError(
            f"arch must be one of torchvision's builders for classification, got {name} of "
            f"{arch.__module__}"
        )
    if channels == 1 and name in _INCEPTIONS:
        raise ValueError(f"images for {name} must have 3 channels, got 1: set data.channels=3")
    keywords = {"weights": None, **told(arch, classes=classes, size=size)}
    if name in _INCEPTIONS:
        keywords |= {"transform_input": True, "init_weights": True}
    net = _built(name, arch, keywords)
    (head,) = head_names(net)
    last = net.get_submodule(head)
    width = last.out_channels if isinstance(last, nn.Conv2d) else last.out_features
    if width != classes:
        last = nn.Linear(last.in_features, classes)
        net.set_submodule(head, last)
    if dropout:
        net.set_submodule(head, nn.Sequential(nn.Dropout(dropout), last))
    if channels == 1:
        first = first_conv(net)
        net.set_submodule(first, _of_one_channel(net.get_submodule(first)))
    if getattr(net, "aux_logits", False):
        net.aux_logits = False
        for auxiliary in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, auxiliary):
                setattr(net, auxiliary, None)
    return net


def timm_net(
    arch: str,
    *,
    classes: int,
    channels: int = 3,
    size: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a model of timm with random weights and timm's own head.

    Args:
        arch: such as "efficientnet_lite0" or, with its tag, "convnext_tiny.in12k_ft_in1k".
        classes: number of logits.
        channels: 3, or 1: timm then sums the weights of the first convolution.
        size: height and width of the images, pixels; models of one fixed size are built for it.
            None leaves it to the model.
        dropout: fraction of the features dropped before the last layer, 0 to 1.

    Raises:
        ValueError: timm is not installed or has no such model, or the model cannot take such
            images.
    """
    arch = todays(arch)
    keywords = _timm_keywords(arch, classes, channels, size, dropout)
    return _built(arch, partial(import_timm().create_model, arch), keywords)


def fetched_timm_net(
    arch: str, *, classes: int, channels: int, size: int, dropout: float
) -> nn.Module:
    """Build a model of timm as `timm_net` does, with the weights of its tag and a new head.

    The weights come from huggingface_hub's cache, or are fetched from the Hugging Face Hub.

    Raises:
        ValueError: also if the weights cannot be fetched.
    """
    from huggingface_hub.errors import HTTPError  # its client's: httpx's or httpx2's
    from safetensors import SafetensorError

    timm = import_timm()
    arch = todays(arch)
    keywords = _timm_keywords(arch, classes, channels, size, dropout)
    try:
        net = timm.create_model(arch, pretrained=True, **keywords)
    except (OSError, RuntimeError, ValueError, HTTPError, SafetensorError) as error:
        raise ValueError(
            f"the weights of timm's '{arch}' must come whole from the Hugging Face Hub, got "
            f"'{_one_line(error)}': give the path of a .safetensors or .pth file instead"
        ) from error
    if timm_cfg(arch).num_classes == classes:
        net.reset_classifier(classes)  # it knows the classes of ImageNet, if this data has as many
    return net


def _timm_keywords(
    arch: str, classes: int, channels: int, size: int | None, dropout: float
) -> dict[str, Any]:
    _check_channels(arch, channels)
    cfg = timm_cfg(arch)
    keywords: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if dropout:
        keywords["drop_rate"] = dropout
    if size is not None and cfg is not None and cfg.fixed_input_size:
        keywords["img_size"] = size
    return keywords


def import_timm() -> Any:
    """Return the module timm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"a model of timm needs timm: {TIMM} ({error})") from error
    return timm


def timm_cfg(arch: str) -> Any:
    """Return what timm knows of a model and its tag, a `PretrainedCfg`; None if nothing."""
    try:
        return import_timm().get_pretrained_cfg(arch)
    except RuntimeError:  # the model has no such tag
        return None


def todays(arch: str) -> str:
    """Return a model's name in timm, with its tag if it has one; a renamed one's name of today.

    Raises:
        ValueError: timm is not installed, or has no such model or tag.
    """
    timm = import_timm()
    from timm.models import get_deprecated_models

    renamed = get_deprecated_models()
    if arch in renamed:
        if renamed[arch] is None:
            raise ValueError(f"timm has removed {arch!r}, with no model in its place")
        return renamed[arch]
    name, tag = split_name(arch)
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models(), cutoff=0.6)
        raise ValueError(f"timm has no model {name!r}.{near if len(near) < 200 else ''}")
    if tag and timm_cfg(arch) is None:
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
        raise ValueError(f"timm's {name!r} has no weights {tag!r}.{did_you_mean(tag, tags)}")
    return arch


def split_name(arch: str) -> tuple[str, str]:
    """Return the name and the tag of a model of timm's; the tag is empty where there is none."""
    name, _, tag = arch.partition(".")
    return name, tag


def fixed_size_of(arch: Callable[..., nn.Module]) -> bool:
    """Whether a builder of torchvision's makes nets of one image size: ViT and MaxViT."""
    return bool({"image_size", "input_size"} & taken(arch)[0])


def head_names(net: nn.Module) -> tuple[str, ...]:
    """Return the names of a net's last layers, which know the classes; nearly always one.

    timm's models name theirs; of others it is the last linear layer, or where there is none the
    last convolution.

    Raises:
        ValueError: the net has no such layer.
    """
    cfg = getattr(net, "pretrained_cfg", None)
    if isinstance(cfg, dict) and cfg.get("classifier"):
        named = cfg["classifier"]
        names = (named,) if isinstance(named, str) else tuple(named)
        modules = dict(net.named_modules())
        if found := tuple(name for name in names if name in modules):
            return found
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in net.named_modules() if isinstance(module, kind)]
        if names:
            return (names[-1],)
    raise ValueError(f"a net must end in a linear layer, {type(net).__name__} has none")


def first_conv(net: nn.Module) -> str:
    """Return the name of the convolution that takes the images.

    Raises:
        ValueError: the net has none.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            return name
    raise ValueError(f"{type(net).__name__} has no convolution to take images of one channel")


def layer_groups(net: nn.Module) -> list[list[nn.Parameter]]:
    """Return a net's parameters in groups, from the images to the head, each in exactly one.

    The head is the last group alone. Of timm's models the others are those of `group_matcher`: the
    stem, then stages or blocks. Of others they are the children; while there are fewer than six,
    the largest is replaced by its own parameters and children. Neighbors are joined until there are
    at most twelve groups in all.
    """
    heads = {id(p) for name in head_names(net) for p in net.get_submodule(name).parameters()}
    parts = _timm_parts(net) or _parts(net)
    body, seen = [], set(heads)
    for part in parts:
        own = [p for p in part if id(p) not in seen]
        seen |= {id(p) for p in own}
        body += [own] if own else []
    # What no part has, such as a token on the net itself, lies before the first layer.
    left = [p for p in net.parameters() if id(p) not in seen]
    if left:
        body = [left + body[0], *body[1:]] if body else [left]
    head = [p for p in net.parameters() if id(p) in heads]
    return [*_joined(body, MOST_GROUPS - 1), head]


def check_output(net: nn.Module, name: str, *, classes: int, channels: int, size: int) -> None:
    """Refuse a net that does not give a logit for each class to images of this size.

    Two black images pass through it without being computed: on torch's meta device, where the net
    can, else on its own. The net stays as it is.

    Raises:
        ValueError: it gives something else, or fails.
    """
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    mode = net.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                onto_meta = {key: value.to("meta") for key, value in state.items()}
                images = torch.zeros(2, channels, size, size, device="meta")
                logits = functional_call(net.train(), onto_meta, (images,))
            except Exception:  # whatever a net does with numbers that are not there
                device = next(iter(state.values())).device if state else None
                logits = net.eval()(torch.zeros(2, channels, size, size, device=device))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must take images of {channels} x {size} x {size}, but fails: "
            f"{_one_line(error)}"
        ) from error
    finally:
        net.train(mode)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise ValueError(
            f"{name} must give a logit for each of {classes} classes, for two images "
            f"(2, {classes}), got {shape}"
        )


def _timm_parts(net: nn.Module) -> list[list[nn.Parameter]]:
    """Return the groups of timm's own matcher; none for a net that has no coarse one."""
    try:
        matcher = net.group_matcher(coarse=True)
    except (AttributeError, AssertionError, NotImplementedError):
        return []
    from timm.models import group_parameters

    names = group_parameters(net, matcher)
    parameters = dict(net.named_parameters())
    return [[parameters[name] for name in names[number]] for number in sorted(names)]


def _parts(net: nn.Module) -> list[list[nn.Parameter]]:
    parts: list[nn.Module | nn.Parameter] = _opened(net)
    while sum(isinstance(each, nn.Module) for each in parts) < _FEWEST_PARTS:
        closed = [each for each in parts if isinstance(each, nn.Module) and any(each.children())]
        if not closed:
            break
        place = parts.index(max(closed, key=_numbers))
        parts[place : place + 1] = _opened(parts[place])
    return [list(each.parameters()) if isinstance(each, nn.Module) else [each] for each in parts]


def _opened(module: nn.Module) -> list[nn.Module | nn.Parameter]:
    """Return a module's own parameters, and its children that have any."""
    own = list(module.parameters(recurse=False))
    return own + [child for child in module.children() if _numbers(child)]


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _joined(groups: list[list[nn.Parameter]], most: int) -> list[list[nn.Parameter]]:
    together = -(-len(groups) // most)
    return [
        [p for group in groups[start : start + together] for p in group]
        for start in range(0, len(groups), max(together, 1))
    ]


def told(
    build: Callable[..., nn.Module], *, classes: int, size: int | None, channels: int | None = None
) -> dict[str, Any]:
    """Return what a builder of torchvision or timm is told of the data, by the names it takes.

    Size and channels are left out if they are None, or if the builder does not take them.
    """
    known, open_ended = taken(build)
    ends: dict[str, Any] = {}
    if open_ended or "num_classes" in known:
        ends["num_classes"] = classes
    for value, names in (
        (channels, ("channels", "in_chans")),
        (size, ("size", "img_size", "image_size")),
    ):
        name = next((each for each in names if each in known), None)
        if name is not None and value is not None:
            ends[name] = value
    if size is not None and build.__module__ == "torchvision.models.maxvit":
        ends["input_size"] = (size, size)
    return ends


def _classifies(arch: Callable[..., nn.Module]) -> bool:
    """Whether a builder is torchvision's for classification, or not torchvision's at all.

    Those for segmentation and detection would fetch weights of their own.
    """
    module = getattr(arch, "__module__", "")
    if not module.startswith("torchvision.models."):
        return True
    return arch.__name__ in list_models(module=torchvision.models)


def taken(build: Callable[..., nn.Module]) -> tuple[set[str], bool]:
    """Return the keywords that a builder takes, and whether it takes any.

    Builders of torchvision and timm pass keywords on to the class that they say they return.
    """
    signature = inspect.signature(build)
    found = set(signature.parameters)
    open_ended = any(
        each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values()
    )
    net = signature.return_annotation
    if open_ended and isinstance(net, type):
        found |= set(inspect.signature(net).parameters)
    return found, open_ended


def _built(name: str, build: Callable[..., Any], keywords: dict[str, Any]) -> nn.Module:
    try:
        net = build(**keywords)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        settings = ", ".join(f"{key}={value}" for key, value in keywords.items() if value)
        raise ValueError(
            f"arch must build a net for these images, {name} with {settings} does not: "
            f"{_one_line(error)}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"arch must build a net, {name} builds {type(net).__name__}")
    return net


def _of_one_channel(conv: nn.Conv2d) -> nn.Conv2d:
    one = nn.Conv2d(
        1,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        bias=conv.bias is not None,
    )
    with torch.no_grad():  # as the net initializes its own: for a gray image in all three colors
        one.weight.copy_(conv.weight.sum(dim=1, keepdim=True))
        if conv.bias is not None:
            one.bias.copy_(conv.bias)
    return one


def _check_channels(name: str, channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"images for {name} must have 1 or 3 channels, got {channels}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def name_of(thing: Any) -> str:
    """Return the name of what builds a net: a function's, a class's, or that of a timm model."""
    return getattr(thing, "__name__", repr(thing))

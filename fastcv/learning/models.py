"""The `model` slot of a recipe: values that build a Learner for given DataLoaders.

Random weights come from torch's global generator: seed it to get the same net again.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torchvision
from fastai.callback.training import BnFreeze
from fastai.data.core import DataLoaders
from fastcore.foundation import L
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from fastcv.learning import weights as weight_files
from fastcv.learning.learner import Learner
from fastcv.learning.resnets import torchvision_resnet
from fastcv.learning.snapshot import snapshot_rng
from fastcv.nets.basenet import BaseNet
from fastcv.recipe.bounds import check_callable, check_number, shown
from fastcv.recipe.values import check_built_later
from fastcv.suggest import did_you_mean

_FROM_DATA = ("classes", "channels", "size")
_THINNED = ("widths", "hidden")  # settings that a smoke run divides
_THINNING, _THINNEST = 16, 4


@dataclass(frozen=True, kw_only=True)
class FromScratch:
    """A net with random weights, in one parameter group.

    Attributes:
        net: called as `net(classes=, channels=, size=, **settings)`; size in pixels.
        settings: further keywords of the net.
    """

    net: Callable[..., nn.Module] = BaseNet
    settings: Mapping = field(default_factory=dict)

    def __post_init__(self):
        check_callable("net", self.net, or_class=True)
        check_built_later("net", self.net)
        if not isinstance(self.settings, Mapping):
            raise ValueError(
                f"settings must be a mapping of the net's keywords, got {shown(self.settings)}"
            )

    def __call__(self, dls: DataLoaders, **learner_keywords) -> Learner:
        """Build the net for the images and classes of `dls`, and a Learner with these keywords.

        Raises:
            ValueError: images that are not square, or a setting or size that the net rejects.
        """
        channels, height, width = _image_shape(dls)
        if height != width:
            raise ValueError(
                f"images must be square, got {height}x{width} pixels: resize or crop them"
            )
        build, settings = self.parts(classes=len(dls.vocab), channels=channels, size=height)
        return Learner(dls, _built(build, settings), **learner_keywords)

    def parts(
        self, *, classes: int, channels: int, size: int
    ) -> tuple[Callable[..., nn.Module], dict[str, object]]:
        """Return what builds the net, and all its keywords.

        Raises:
            ValueError: the net does not take a setting.
        """
        _check_settings(self.net, self.settings)
        ends = {"classes": classes, "channels": channels, "size": size}
        return self.net, {**ends, **self.settings}

    def but(self, **settings: object) -> "FromScratch":
        """Return this value with some of the net's settings replaced or added."""
        return replace(self, settings={**self.settings, **settings})

    def smoke(self) -> "FromScratch":
        """Return a thinner net for a smoke run.

        Its settings `widths` and `hidden`, or the net's defaults for them, are divided by 16, but
        not below 4.
        """
        parameters = inspect.signature(self.net).parameters
        defaults = {name: parameters[name].default for name in _THINNED if name in parameters}
        wide = {
            name: each for name, each in defaults.items() if each is not inspect.Parameter.empty
        }
        wide |= {name: each for name, each in self.settings.items() if name in _THINNED}
        return self.but(**{name: _thinned(each) for name, each in wide.items()})


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A torchvision ResNet with a new head, in one parameter group for each child with parameters.

    The groups are conv1, bn1, layer1 to layer4 and fc: `learn.freeze()` trains the head alone, and
    `slice(1e-5, 1e-3)` distributes learning rates over the seven.

    The head is new unless a weights file has one of the same shape, as a run's own file does. For
    images of one channel, the weights of the first convolution are summed over the three colors:
    the net's output is that for the gray image in all three.

    Attributes:
        arch: one of torchvision's ResNet builders.
        weights: a name of torchvision's, the path of a .safetensors or .pth file, or None for
            random weights.
        dropout: fraction of the features dropped before the last layer, 0 to 1; 0 adds no layer.
        block_dropout: fraction dropped after every ReLU of the residual blocks, 0 to 1.
        train_bn: what happens to the BatchNorm layers of frozen groups. True: they train, as in
            fastai. "statistics": their weights stay, their running statistics follow the batches,
            as in PyTorch after `requires_grad_(False)`. False: weights and statistics stay.
    """

    arch: Callable[..., ResNet] = torchvision.models.resnet50
    weights: str | Path | None = "IMAGENET1K_V1"
    dropout: float = 0.0
    block_dropout: float = 0.0
    train_bn: bool | str = True

    def __post_init__(self):
        check_callable("arch", self.arch, or_class=True)
        check_built_later("arch", self.arch)
        if not isinstance(self.weights, str | Path | None):
            raise ValueError(f"weights must be a name, a path or None, got {shown(self.weights)}")
        for name in ("dropout", "block_dropout"):
            check_number(name, getattr(self, name), least=0, most=1)
        if not (isinstance(self.train_bn, bool) or self.train_bn == "statistics"):
            raise ValueError(f"train_bn must be True, False or 'statistics', got {self.train_bn!r}")

    def __call__(self, dls: DataLoaders, **learner_keywords) -> Learner:
        """Build the net for the channels and classes of `dls`, fetching weights where needed.

        Raises:
            ValueError: `arch` builds no ResNet, the weights cannot be fetched or do not fit, or the
                images have neither 1 nor 3 channels.
        """
        channels, height, _ = _image_shape(dls)
        build, settings = self.parts(classes=len(dls.vocab), channels=channels, size=height)
        net = _built(build, settings)
        if self.weights is not None:
            self._load(net)
        callbacks = list(L(learner_keywords.pop("cbs", None)))
        if not self.train_bn:
            callbacks.append(BnFreeze())
        return Learner(
            dls,
            net,
            splitter=parameter_groups,
            train_bn=self.train_bn is True,
            cbs=callbacks,
            **learner_keywords,
        )

    def parts(
        self, *, classes: int, channels: int, size: int
    ) -> tuple[Callable[..., nn.Module], dict[str, object]]:
        """Return what builds the net, and all its keywords; any size will do."""
        dropouts = {"dropout": self.dropout, "block_dropout": self.block_dropout}
        return torchvision_resnet, {
            "arch": self.arch,
            "classes": classes,
            "channels": channels,
            **dropouts,
        }

    def smoke(self) -> "Pretrained":
        """Return the value for a smoke run: random weights, so that none are fetched.

        The shallowest ResNet with the same children replaces torchvision's.
        """
        known = getattr(self.arch, "__module__", None) == ResNet.__module__
        return replace(self, weights=None, arch=resnet10 if known else self.arch)

    def _load(self, net: ResNet) -> None:
        if weight_files.is_path(self.weights):
            state = weight_files.read(self.weights)
        else:
            state = weight_files.named(self.arch, str(self.weights))
            # The head knows the classes of ImageNet, even if this data has as many.
            state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        state = _with_head_of(net, state)
        first = state.get("conv1.weight")
        if first is not None and first.shape[1] == 3 and net.conv1.in_channels == 1:
            state["conv1.weight"] = first.sum(dim=1, keepdim=True)
        weight_files.copy(state, net, source=f"the weights '{self.weights}'")


def resnet10(weights: None = None) -> ResNet:
    """Build torchvision's ResNet with one block a stage, the smallest with all ten children."""
    return ResNet(BasicBlock, [1, 1, 1, 1])


def parameter_groups(net: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each child that has any, in the order of the children."""
    groups = [list(child.parameters()) for child in net.children()]
    return [group for group in groups if group]


def last_children(learn: Learner, n: int) -> None:
    """Freeze all but the last `n` of the net's children, as Report 004 counts "layers".

    A torchvision ResNet has ten: conv1, bn1, relu, maxpool, layer1 to layer4, avgpool, fc. Children
    without parameters count, so 4 trains layer3, layer4 and fc.

    Raises:
        ValueError: `n` is below 1 or above the number of children, none of the last `n` has
            parameters, or the net has too few parameter groups.
    """
    children = list(learn.model.children())
    if not 1 <= n <= len(children):
        raise ValueError(f"the last children to train must be 1 to {len(children)}, got {n}")
    trained = len(parameter_groups(nn.ModuleList(children[-n:])))
    if trained == 0:
        raise ValueError(
            f"the last {n} children must have parameters to train, got none: raise the number"
        )
    groups = len(parameter_groups(learn.model))
    if learn.opt is None:
        learn.create_opt()
    if trained < groups != len(learn.opt.param_groups):
        raise ValueError(
            f"to train the last {n} children the net must have a parameter group for each child, "
            f"got {len(learn.opt.param_groups)} for {groups}: use a Pretrained model, or "
            f"frozen=False"
        )
    learn.freeze_to(groups - trained)


def _image_shape(dls: DataLoaders) -> tuple[int, int, int]:
    """Return (C, H, W) from `dls` or its first batch, without advancing a random generator."""
    shape = getattr(dls, "image_shape", None)
    if shape is None:
        with snapshot_rng(dls):
            shape = dls.one_batch()[0].shape[1:]
    return tuple(shape)


def _built(build: Callable[..., nn.Module], settings: Mapping) -> nn.Module:
    """Build a net.

    Raises:
        ValueError: it cannot be built with these settings.
    """
    try:
        net = build(**settings)
    except ValueError:
        raise
    except Exception as error:  # whatever torch raises on widths that are text, or negative
        own = {name: value for name, value in settings.items() if name not in _FROM_DATA}
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{_name(build)} must be given settings that it can be built with, got {shown(own)}: "
            f"{reason}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{_name(build)} must build a torch module, got {shown(net)}")
    return net


def _check_settings(net: Callable[..., nn.Module], settings: Mapping) -> None:
    parameters = inspect.signature(net).parameters
    own = [name for name in parameters if name not in _FROM_DATA]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in settings:
        if name in _FROM_DATA:
            raise ValueError(f"'{name}' comes from the data: leave it out of the net's settings")
        if name not in own and not open_ended:
            raise ValueError(f"{_name(net)} has no setting '{name}'.{did_you_mean(name, own)}")


def _thinned(widths: int | Sequence) -> int | tuple:
    """Divide widths, also in nested lists; none falls below the least, none grows."""
    if isinstance(widths, int):
        return min(widths, max(widths // _THINNING, _THINNEST))
    if not isinstance(widths, tuple | list):
        return widths  # no widths at all: the net will say so
    return tuple(_thinned(each) for each in widths)


def _with_head_of(net: ResNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the net's own head, unless its head has the same shape.

    A head is one linear layer, "fc" or, after a dropout, "fc.1".
    """
    own = {key: value for key, value in net.state_dict().items() if key.startswith("fc.")}
    given = {key.rpartition(".")[2]: v for key, v in state.items() if key.startswith("fc.")}
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    shapes = {key.rpartition(".")[2]: value.shape for key, value in own.items()}
    if {name: value.shape for name, value in given.items()} == shapes:
        own = {key: given[key.rpartition(".")[2]] for key in own}
    return body | own


def _name(thing: Callable) -> str:
    return getattr(thing, "__name__", repr(thing))

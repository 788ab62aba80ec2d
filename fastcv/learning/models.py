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

from fastcv.learning import backbones
from fastcv.learning import weights as weight_files
from fastcv.learning.backbones import name_of, timm_net, torchvision_net
from fastcv.learning.callbacks.fixed_statistics import FixedStatistics
from fastcv.learning.learner import Learner
from fastcv.learning.origins import Origin, file_origin, tagged, timm_origin, torchvision_origin
from fastcv.learning.resnets import torchvision_resnet
from fastcv.learning.snapshot import snapshot_rng
from fastcv.nets.basenet import BaseNet
from fastcv.recipe.bounds import check_callable, check_number, shown
from fastcv.recipe.values import check_built_later
from fastcv.suggest import did_you_mean

_FROM_DATA = ("classes", "channels", "size", "num_classes", "in_chans")
_THINNED = ("widths", "hidden")  # settings that a smoke run divides
_THINNING, _THINNEST = 16, 4
_SMALL_TIMM = "test_efficientnet"  # 0.4 million parameters
_IMAGENET = "IMAGENET1K_V1"
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # for training GoogLeNet and Inception


@dataclass(frozen=True, kw_only=True)
class FromScratch:
    """A net with random weights, in one parameter group.

    Args:
        net: called as `net(classes=, channels=, size=, **settings)`; size in pixels. A builder of
            torchvision or timm is called with their names for these (`num_classes`, `in_chans`,
            `img_size`), as far as it takes them.
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
            ValueError: images that are not square, a setting or size that the net rejects, or a net
                that does not give a logit for each class.
        """
        channels, height, width = _image_shape(dls)
        if height != width:
            raise ValueError(
                f"images must be square, got {height}x{width} pixels: resize or crop them"
            )
        ends = {"classes": len(dls.vocab), "channels": channels, "size": height}
        build, settings = self.parts(**ends)
        net = _built(build, settings)
        backbones.check_output(net, name_of(self.net), **ends)
        return Learner(dls, net, **learner_keywords)

    def parts(
        self, *, classes: int, channels: int, size: int
    ) -> tuple[Callable[..., nn.Module], dict[str, object]]:
        """Return what builds the net, and all its keywords.

        Raises:
            ValueError: the net does not take a setting, the number of classes, or gray images.
        """
        _check_settings(self.net, self.settings)
        ends = _ends(self.net, classes=classes, channels=channels, size=size)
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
    """A net of torchvision or timm with a new head, in groups of layers.

    The groups go from the images to the head, which is the last one alone: `learn.freeze()` trains
    the head, and `slice(1e-5, 1e-3)` distributes learning rates over the groups. A torchvision
    ResNet has seven: conv1, bn1, layer1 to layer4 and fc. Of other nets they are timm's own or the
    net's children, at most twelve (`backbones.layer_groups`).

    The head is new unless a weights file has one of the same shape, as a run's own file does. For
    images of one channel, the weights of the first convolution are summed over the three colors:
    the net's output is that for the gray image in all three.

    Args:
        arch: one of torchvision's classification builders, such as `resnet50` or `convnext_tiny`,
            or the name of a timm model, with its tag ("convnext_tiny.in12k_ft_in1k") or without.
        weights: a name of torchvision's, a tag of timm's, or "DEFAULT" for the one that they
            recommend; the path of a .safetensors or .pth file with the net's names; or None for
            random weights. For a timm model, leaving it out takes the tag that stands in `arch`.
        dropout: fraction of the features dropped before the last layer, 0 to 1; 0 leaves the net as
            its makers build it.
        block_dropout: fraction dropped after every ReLU of a ResNet's residual blocks, 0 to 1.
        train_bn: what happens to the BatchNorm layers of frozen groups. True: they train, as in
            fastai. "statistics": their weights stay, their running statistics follow the batches,
            as in PyTorch after `requires_grad_(False)`. False: weights and statistics stay.
            "weights": as False, and where groups train, their BatchNorm layers train weights alone:
            all normalize with the statistics that came with the weights. With few images of each
            class this is what makes training the whole net worthwhile.
    """

    arch: Callable[..., nn.Module] | str = torchvision.models.resnet50
    weights: str | Path | None = _IMAGENET
    dropout: float = 0.0
    block_dropout: float = 0.0
    train_bn: bool | str = True

    def __post_init__(self):
        if not isinstance(self.arch, str):
            check_callable("arch", self.arch, or_class=True)
            check_built_later("arch", self.arch)
        if not isinstance(self.weights, str | Path | None):
            raise ValueError(f"weights must be a name, a path or None, got {shown(self.weights)}")
        for name in ("dropout", "block_dropout"):
            check_number(name, getattr(self, name), least=0, most=1)
        if not (isinstance(self.train_bn, bool) or self.train_bn in ("statistics", "weights")):
            raise ValueError(
                "train_bn must be True, False, 'statistics' or 'weights', got "
                f"{shown(self.train_bn)}"
            )
        if isinstance(self.arch, str) and self.weights == _IMAGENET:  # torchvision's, not timm's
            object.__setattr__(self, "weights", backbones.split_name(self.arch)[1] or "DEFAULT")

    def __call__(self, dls: DataLoaders, **learner_keywords) -> Learner:
        """Build the net for the images and classes of `dls`, fetching weights where needed.

        Raises:
            ValueError: `arch` builds no classification net, the weights cannot be fetched or do not
                fit, the images have neither 1 nor 3 channels or a size that the net does not take.
        """
        channels, height, width = _image_shape(dls)
        build, settings = self.parts(classes=len(dls.vocab), channels=channels, size=height)
        if build is not torchvision_resnet and height != width:
            raise ValueError(
                f"images must be square, got {height}x{width} pixels: resize or crop them"
            )
        if self._fetched_by_timm:
            net = backbones.fetched_timm_net(**settings)
        else:
            net = _built(build, settings)
            if self.weights is not None:
                self._load(net, channels)
        if build is not torchvision_resnet:
            ends = {"classes": len(dls.vocab), "channels": channels, "size": height}
            backbones.check_output(net, name_of(self.arch), **ends)
        callbacks = list(L(learner_keywords.pop("cbs", None)))
        if not self.train_bn:
            callbacks.append(BnFreeze())
        elif self.train_bn == "weights":
            callbacks.append(FixedStatistics())
        return Learner(
            dls,
            net,
            splitter=backbones.layer_groups,
            train_bn=self.train_bn is True,
            cbs=callbacks,
            **learner_keywords,
        )

    def parts(
        self, *, classes: int, channels: int, size: int
    ) -> tuple[Callable[..., nn.Module], dict[str, object]]:
        """Return what builds the net, and all its keywords.

        Raises:
            ValueError: timm is not installed or has no such model or weights, or `block_dropout` is
                set and the net is no ResNet.
        """
        settings = {
            "arch": self._timm_name if isinstance(self.arch, str) else self.arch,
            "classes": classes,
            "channels": channels,
        }
        if _builds_resnet(self.arch):  # of any size
            dropouts = {"dropout": self.dropout, "block_dropout": self.block_dropout}
            return torchvision_resnet, settings | dropouts
        if self.block_dropout:
            raise ValueError(
                f"block_dropout is for torchvision's ResNets, got {name_of(self.arch)}: set dropout"
            )
        build = timm_net if isinstance(self.arch, str) else torchvision_net
        return build, settings | {"size": size, "dropout": self.dropout}

    def origin(self) -> Origin | None:
        """Return where the weights come from and which images they expect; None if nobody knows.

        Raises:
            ValueError: there is no such file, or timm has no such model or weights.
        """
        if self.weights is None:
            return None
        if weight_files.is_path(self.weights):
            return file_origin(self.weights, self.arch)
        if isinstance(self.arch, str):
            return timm_origin(self.arch, str(self.weights))
        return torchvision_origin(self.arch, str(self.weights))

    def smoke(self) -> "Pretrained":
        """Return the value for a smoke run: random weights, so that none are fetched.

        The shallowest ResNet with the same children replaces torchvision's nets, and a small net of
        timm's the others of timm's.

        Raises:
            ValueError: timm is not installed or has no such model.
        """
        if isinstance(self.arch, str):
            backbones.todays(self.arch)
            return replace(self, weights=None, arch=_SMALL_TIMM)
        known = self.arch.__module__.startswith("torchvision.models.")
        return replace(self, weights=None, arch=resnet10 if known else self.arch)

    @property
    def _fetched_by_timm(self) -> bool:
        return (
            isinstance(self.arch, str)
            and self.weights is not None
            and not weight_files.is_path(self.weights)
        )

    @property
    def _timm_name(self) -> str:
        """The model's name of today, with the tag of its weights."""
        if self._fetched_by_timm:
            return tagged(self.arch, str(self.weights))
        return backbones.todays(self.arch)

    def _load(self, net: nn.Module, channels: int) -> None:
        heads = backbones.head_names(net)
        if weight_files.is_path(self.weights):
            state = weight_files.read(self.weights)
        else:
            state = weight_files.named(self.arch, str(self.weights))
            # The head knows the classes of ImageNet, even if this data has as many.
            state = {key: value for key, value in state.items() if not _below(key, net, heads)}
        state = _with_heads_of(net, heads, state)
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
        if channels == 1:
            name = f"{backbones.first_conv(net)}.weight"
            if name in state and state[name].shape[1] == 3:
                state[name] = state[name].float().sum(dim=1, keepdim=True)
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
    own = len(learn.opt.param_groups)
    if trained < groups != own:
        remedy = (
            "use frozen=False, as random weights must all train, or Pretrained for other ones"
            if own == 1  # as FromScratch has it
            else "use frozen=True, which trains the head alone, or frozen=False"
        )
        raise ValueError(
            f"to train the last {n} children the net must have a parameter group for each child, "
            f"got {own} for {groups}: {remedy}"
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
            f"{name_of(build)} must be given settings that it can be built with, got {shown(own)}: "
            f"{reason}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name_of(build)} must build a torch module, got {shown(net)}")
    return net


def _ends(net: Callable[..., nn.Module], **ends: int) -> dict[str, object]:
    """Return what a net is told of the data, under its own names."""
    known, _ = backbones.taken(net)
    foreign = "classes" not in known and "num_classes" in known
    if not foreign:
        return ends
    told = backbones.told(net, **ends)
    if ends["channels"] != 3 and not {"channels", "in_chans"} & set(told):
        raise ValueError(
            f"{name_of(net)} takes images of 3 channels, got {ends['channels']}: set "
            f"data.channels=3, or use Pretrained(arch={name_of(net)}, weights=None)"
        )
    return told


def _check_settings(net: Callable[..., nn.Module], settings: Mapping) -> None:
    known, open_ended = backbones.taken(net)
    own = sorted(known - set(_FROM_DATA))
    for name in settings:
        if name in _FROM_DATA:
            raise ValueError(f"'{name}' comes from the data: leave it out of the net's settings")
        if name not in own and not open_ended:
            raise ValueError(f"{name_of(net)} has no setting '{name}'.{did_you_mean(name, own)}")


def _thinned(widths: int | Sequence) -> int | tuple:
    """Divide widths, also in nested lists; none falls below the least, none grows."""
    if isinstance(widths, int):
        return min(widths, max(widths // _THINNING, _THINNEST))
    if not isinstance(widths, tuple | list):
        return widths  # no widths at all: the net will say so
    return tuple(_thinned(each) for each in widths)


def _builds_resnet(arch: Callable[..., nn.Module] | str) -> bool:
    """Whether a builder says that it builds a torchvision ResNet."""
    if isinstance(arch, str):
        return False
    return inspect.signature(arch).return_annotation in (ResNet, ResNet.__name__)


def _with_heads_of(
    net: nn.Module, heads: Sequence[str], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return `state` with the net's own heads, unless its heads have the same shapes.

    A head is one layer, "fc" or, after a dropout, "fc.1".
    """
    own = {key: value for key, value in net.state_dict().items() if _below(key, net, heads)}
    given = {_at(key, net, heads): v for key, v in state.items() if _below(key, net, heads)}
    body = {key: value for key, value in state.items() if not _below(key, net, heads)}
    shapes = {_at(key, net, heads): value.shape for key, value in own.items()}
    if {place: value.shape for place, value in given.items()} == shapes:
        own = {key: given[_at(key, net, heads)] for key in own}
    return body | own


def _below(key: str, net: nn.Module, heads: Sequence[str]) -> str | None:
    """Return the head that a tensor belongs to, by its name without a dropout's ".1", if any."""
    roots = (_without_dropout(net, head) for head in heads)
    return next((root for root in roots if key.startswith(f"{root}.")), None)


def _at(key: str, net: nn.Module, heads: Sequence[str]) -> tuple[str | None, str]:
    return _below(key, net, heads), key.rpartition(".")[2]


def _without_dropout(net: nn.Module, head: str) -> str:
    """Return the name that a head has without the dropout that fastcv puts before it."""
    above, _, place = head.rpartition(".")
    pair = net.get_submodule(above) if above else None
    dropped = isinstance(pair, nn.Sequential) and len(pair) == 2 and isinstance(pair[0], nn.Dropout)
    return above if dropped and place == "1" else head

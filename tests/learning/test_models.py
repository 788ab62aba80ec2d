import json
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.optimizer import OptimWrapper
from torch import nn
from torchvision.models import (
    ResNet,
    alexnet,
    mobilenet_v3_small,
    resnet18,
    resnet50,
    vgg11,
    vit_b_32,
)
from torchvision.models.segmentation import fcn_resnet50

from fastcv.learning import weights
from fastcv.learning.learner import Learner
from fastcv.learning.models import FromScratch, Pretrained, last_children, parameter_groups
from fastcv.learning.whitened import Whitened
from fastcv.nets import VGG, LightResNet, ScaledResNet, SpeedrunNet
from fastcv.nets.basenet import BaseNet

SGD = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9, fused=True))
THIN_VGG19 = ((4,) * 2, (8,) * 2, (16,) * 4, (32,) * 4, (32,) * 4)
GROUPS = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]


def toy_dls(path="", *, channels=3, size=32, classes=4, width=None, shape=True):
    items = [(torch.rand(channels, size, width or size), i % classes) for i in range(12)]
    items = [(x, torch.tensor(y)) for x, y in items]
    dls = DataLoaders.from_dsets(items, items[:4], bs=4, device="cpu", num_workers=0, path=path)
    dls.vocab = [f"class {i}" for i in range(classes)]
    if shape:
        dls.image_shape = (channels, size, width or size)
    return dls


def learner(value, dls=None, **keywords):
    keywords = {"loss_func": nn.CrossEntropyLoss(), "opt_func": SGD} | keywords
    learn = value(toy_dls() if dls is None else dls, **keywords)
    learn.remove_cbs(learn.progress)
    learn.logger = lambda *_: None
    return learn


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A ResNet-18 of 1000 classes and its file, in place of ImageNet's weights."""
    torch.manual_seed(7)
    net = resnet18()
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    weights.save(net, path)
    return net, path


def states(learn):
    return {key: value.clone() for key, value in learn.model.state_dict().items()}


def changed_children(learn, *, lr=0.1):
    """Train a batch; return the children whose parameters changed, and whose buffers did."""
    before = states(learn)
    learn.fit(1, lr)
    parameters = {name for name, _ in learn.model.named_parameters()}
    moved = [key for key, value in learn.model.state_dict().items() if not value.equal(before[key])]
    return (
        {key.partition(".")[0] for key in moved if key in parameters},
        {key.partition(".")[0] for key in moved if key not in parameters},
    )


def test_from_scratch_builds_the_net_for_the_data():
    learn = learner(FromScratch(net=BaseNet), toy_dls(channels=1, size=28, classes=7))
    assert isinstance(learn, Learner)
    assert learn.model(torch.rand(2, 1, 28, 28)).shape == (2, 7)
    learn.fit(1)
    assert len(learn.opt.param_lists) == 1


def test_from_scratch_hands_settings_to_the_net():
    learn = learner(FromScratch(net=BaseNet, settings={"norm": True}))
    assert any(isinstance(module, nn.BatchNorm2d) for module in learn.model.modules())


@pytest.mark.parametrize("value", [FromScratch(), Pretrained(arch=resnet18, weights=None)])
def test_models_read_the_shape_off_a_batch_without_a_trace(value):
    def build(*, shape):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        learn = learner(value, toy_dls(size=32, shape=shape))
        learn.fit(1)
        return states(learn), random.random(), np.random.rand(), torch.rand(1).item()

    told, seen = build(shape=True), build(shape=False)
    assert told[1:] == seen[1:]
    assert all(torch.equal(seen[0][key], value) for key, value in told[0].items())


@pytest.mark.parametrize(
    ("value", "dls", "words"),
    [
        (FromScratch(), {"width": 48}, "images must be square, got 32x48 pixels"),
        (
            FromScratch(settings={"nrm": True}),
            {},
            r"BaseNet has no setting 'nrm'\. Did you mean 'norm'\?",
        ),
        (FromScratch(settings={"classes": 3}), {}, "'classes' comes from the data"),
        (FromScratch(), {"size": 8}, "at least 16 pixels for this BaseNet, got 8"),
        (Pretrained(weights=None), {"channels": 4}, "must have 1 or 3 channels, got 4"),
        (
            Pretrained(arch=alexnet, weights=None),
            {},
            "alexnet must take images of 3 x 32 x 32",
        ),
        (Pretrained(arch=vit_b_32, weights=None), {"size": 40}, "vit_b_32 with .*image_size=40"),
        (Pretrained(arch=fcn_resnet50, weights=None), {}, "builders for classification, got fcn_"),
        (Pretrained(arch=json.dumps, weights=None), {}, "arch must build a net"),
        (
            Pretrained(arch=vgg11, weights=None, block_dropout=0.1),
            {},
            "for torchvision's ResNets",
        ),
        (Pretrained(arch=resnet18, weights="IMAGENET"), {}, r"Did you mean 'IMAGENET1K_V1'\?"),
        (Pretrained(arch=resnet18, weights="none/such.pth"), {}, "there must be a weights file"),
    ],
)
def test_models_refuse_in_one_sentence(value, dls, words):
    with pytest.raises(ValueError, match=words) as caught:
        learner(value, toy_dls(**dls))
    assert "\n" not in str(caught.value)


def test_models_are_equal_printable_values_and_smoke_fetches_nothing():
    assert Pretrained(arch=resnet18) == Pretrained(arch=resnet18, weights="IMAGENET1K_V1")
    assert Pretrained() != Pretrained(dropout=0.1)
    assert "weights='IMAGENET1K_V1'" in repr(Pretrained())
    smoke = Pretrained(dropout=0.3).smoke()
    assert smoke == Pretrained(dropout=0.3, weights=None, arch=smoke.arch)
    assert FromScratch().smoke() == FromScratch()


@pytest.mark.parametrize(
    ("value", "thinned"),
    [
        (FromScratch(net=ScaledResNet), {"widths": (4, 8, 16, 32)}),
        (
            FromScratch(net=LightResNet, settings={"widths": (2, 64, 128, 256)}),
            {"widths": (2, 4, 8, 16)},
        ),
        (
            FromScratch(
                net=VGG,
                settings={"widths": ((64, 64), (128,)), "max_pools": (1,), "average_pool": True},
            ),
            {
                "widths": ((4, 4), (8,)),
                "max_pools": (1,),
                "average_pool": True,
                "hidden": (256, 256),
            },
        ),
        (FromScratch(net=VGG, settings={"hidden": ()}), {"hidden": (), "widths": THIN_VGG19}),
    ],
    ids=["default", "given", "nested", "none"],
)
def test_smoke_thins_the_net_and_keeps_what_it_is_made_of(value, thinned):
    smoke = value.smoke()
    assert smoke == FromScratch(net=value.net, settings=thinned)
    small, whole = (learner(each, toy_dls(size=32)).model for each in (smoke, value))
    kinds = [[type(layer) for layer in net.modules()] for net in (small, whole)]
    assert kinds[0] == kinds[1]


def test_smoke_of_a_whitened_net_is_a_whitened_net():
    smoke = Whitened(net=SpeedrunNet, images=7).smoke()
    assert smoke == Whitened(net=SpeedrunNet, settings={"widths": (4, 16, 16)}, images=7)


@pytest.mark.parametrize("arch", [resnet18, resnet50])
def test_smoke_of_a_pretrained_net_has_its_children(arch):
    small = learner(Pretrained(arch=arch).smoke()).model
    assert [name for name, _ in small.named_children()] == [n for n, _ in arch().named_children()]
    assert sum(p.numel() for p in small.parameters()) < 5_000_000


def test_pretrained_equals_torchvision_but_for_the_head(body):
    net, path = body
    learn = learner(Pretrained(arch=resnet18, weights=path))
    model = learn.model.eval()
    features = nn.Sequential(*list(net.eval().children())[:-1], nn.Flatten())
    x = torch.rand(2, 3, 64, 64)
    expected = nn.functional.linear(features(x), model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(x), expected)
    assert model.fc.weight.shape == (4, 512)


def test_pretrained_by_name_loads_torchvisions_weights_but_never_its_head(body, monkeypatch):
    net, _ = body
    monkeypatch.setattr(weights, "named", lambda arch, name: dict(net.state_dict()))
    value = Pretrained(arch=resnet18, weights="IMAGENET1K_V1")
    learn = learner(value, toy_dls(classes=1000))
    assert torch.equal(learn.model.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
    assert not torch.equal(learn.model.fc.weight, net.fc.weight)


def test_pretrained_dropout_stands_before_the_last_layer():
    model = learner(Pretrained(arch=resnet18, weights=None, dropout=0.25)).model
    drop, linear = model.fc
    assert (drop.p, linear.out_features) == (0.25, 4)
    assert isinstance(learner(Pretrained(arch=resnet18, weights=None)).model.fc, nn.Linear)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_pretrained_from_a_run_keeps_its_head_with_or_without_dropout(tmp_path, dropout):
    path = tmp_path / "model.safetensors"
    run = learner(Pretrained(arch=resnet18, weights=None, dropout=0.5)).model
    weights.save(run, path)
    value = Pretrained(arch=resnet18, weights=path, dropout=dropout)
    model = learner(value).model
    linear = model.fc[1] if dropout else model.fc
    assert torch.equal(linear.weight, run.fc[1].weight)
    other = learner(value, toy_dls(classes=9)).model
    assert torch.equal(other.layer1[0].conv1.weight, run.layer1[0].conv1.weight)


def test_pretrained_with_another_body_names_the_first_key(tmp_path, body):
    _, path = body
    with pytest.raises(ValueError, match=r"must fit ResNet: 'layer1\.0\.conv1\.weight' has shape"):
        learner(Pretrained(arch=resnet50, weights=path))
    torch.save({"features": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"'conv1\.weight' is missing"):
        learner(Pretrained(arch=resnet18, weights=tmp_path / "other.pth"))


def test_pretrained_on_gray_images_answers_as_to_three_equal_channels(body, tmp_path):
    _, path = body
    value = Pretrained(arch=resnet18, weights=path)
    gray = learner(value, toy_dls(channels=1)).model.eval()
    color = learner(value).model.eval()
    color.fc = gray.fc
    x = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(gray(x), color(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    weights.save(gray, tmp_path / "gray.safetensors")
    again = learner(replace(value, weights=tmp_path / "gray.safetensors"), toy_dls(channels=1))
    assert torch.equal(again.model.conv1.weight, gray.conv1.weight)


def test_pretrained_head_and_body_are_decided_by_the_seed():
    def build(seed):
        torch.manual_seed(seed)
        return learner(Pretrained(arch=resnet18, weights=None)).model.state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_pretrained_groups_are_torchvisions_children_with_parameters():
    net = resnet18()
    expected = [list(getattr(net, name).parameters()) for name in GROUPS]
    groups = parameter_groups(net)
    assert [[id(p) for p in group] for group in groups] == [[id(p) for p in g] for g in expected]
    assert len(list(net.parameters())) == sum(len(group) for group in groups)


def test_freezing_trains_batch_norm_on_as_fastai_does():
    learn = learner(Pretrained(arch=resnet18, weights=None))
    learn.freeze()
    norms = {
        p for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
    }
    trained = {p for p in learn.model.parameters() if p.requires_grad}
    assert trained == norms | set(learn.model.fc.parameters())
    _, buffers = changed_children(learn)
    assert buffers == {"bn1", "layer1", "layer2", "layer3", "layer4"}
    assert {p for p in learn.model.parameters() if p.requires_grad} == trained


def test_freezing_without_train_bn_changes_the_head_alone():
    learn = learner(Pretrained(arch=resnet18, weights=None, train_bn=False))
    learn.freeze()
    assert changed_children(learn) == ({"fc"}, set())
    learn.freeze_to(-2)
    assert changed_children(learn) == ({"layer4", "fc"}, {"layer4"})
    learn.unfreeze()
    assert changed_children(learn)[0] == set(GROUPS)


def test_frozen_batch_norm_may_follow_the_batches_in_its_statistics_alone():
    learn = learner(Pretrained(arch=resnet18, weights=None, train_bn="statistics"))
    learn.freeze()
    weights, buffers = changed_children(learn)
    assert weights == {"fc"}
    assert buffers == {"bn1", "layer1", "layer2", "layer3", "layer4"}


def test_batch_norm_may_keep_its_statistics_while_its_weights_train():
    learn = learner(Pretrained(arch=resnet18, weights=None, train_bn="weights"))
    learn.freeze()
    assert changed_children(learn) == ({"fc"}, set())
    learn.unfreeze()
    assert changed_children(learn) == (set(GROUPS), set())
    norms = [m for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight.requires_grad for norm in norms)


def test_callbacks_given_beside_frozen_batch_norm_run():
    class Marking(Callback):
        def before_fit(self):
            self.learn.marked = True

    value = Pretrained(arch=resnet18, weights=None, train_bn=False)
    for cbs in (Marking(), [Marking()], Marking):
        learn = learner(value, cbs=cbs)
        learn.freeze()
        assert changed_children(learn) == ({"fc"}, set())
        assert learn.marked


# Report 004's nets: all but the last n of ten children frozen.
@pytest.mark.parametrize(
    ("n", "trained"),
    [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 5), (8, 5), (9, 6), (10, 7)],
)
def test_last_children_trains_as_the_names_say(n, trained):
    learn = learner(Pretrained(arch=resnet18, weights=None, train_bn=False))
    last_children(learn, n)
    names = [name for name, _ in learn.model.named_children()][-n:]
    assert {name for name in GROUPS if name in names} == set(GROUPS[-trained:])
    for name, child in learn.model.named_children():
        assert all(p.requires_grad is (name in names) for p in child.parameters())


@pytest.mark.parametrize("n", [0, -1, 11])
def test_last_children_out_of_range_is_a_value_error(n):
    learn = learner(Pretrained(arch=resnet18, weights=None))
    with pytest.raises(ValueError, match=f"must be 1 to 10, got {n}"):
        last_children(learn, n)


def test_last_children_of_a_net_in_one_group_are_refused():
    learn = learner(FromScratch(net=BaseNet))
    with pytest.raises(ValueError, match="got 1 for 2: use frozen=False, as random"):
        last_children(learn, 1)
    last_children(learn, 2)
    assert all(p.requires_grad for p in learn.model.parameters())


def test_last_children_of_other_groups_are_refused_with_what_can_be_frozen():
    learn = learner(Pretrained(arch=mobilenet_v3_small, weights=None))
    with pytest.raises(ValueError, match=r"got \d+ for 2: use frozen=True, which"):
        last_children(learn, 1)


def test_rates_spread_over_the_groups_through_a_fused_optimizer():
    learn = learner(Pretrained(arch=resnet18, weights=None))
    learn.fit(1, slice(1e-6, 1e-3))
    rates = [group["lr"] for group in learn.opt.opt.param_groups]
    np.testing.assert_allclose(rates, np.geomspace(1e-6, 1e-3, 7))
    before = states(learn)
    learn.fit(1, [0, 0, 0, 0, 0, 0, 0.1])
    parameters = dict(learn.model.named_parameters())
    moved = {key for key in parameters if not parameters[key].equal(before[key])}
    assert moved == {"fc.weight", "fc.bias"}


def test_fine_tune_one_cycle_and_lr_find_run_on_a_pretrained_net(tmp_path):
    learn = learner(Pretrained(arch=resnet18, weights=None), toy_dls(tmp_path))
    learn.freeze()
    assert 0 < learn.lr_find(num_it=8, show_plot=False).valley < 10
    learn.fine_tune(1, 1e-3)
    assert all(p.requires_grad for p in learn.model.parameters())
    assert isinstance(learn.model, ResNet)
    assert list(tmp_path.iterdir()) == []


def test_lr_find_keeps_the_memory_layout_of_the_weights():
    class ChannelsLast(Callback):
        def before_fit(self):
            self.model.to(memory_format=torch.channels_last)

    learn = learner(Pretrained(arch=resnet18, weights=None), cbs=ChannelsLast())
    before = {
        key: (value.clone(), value.stride()) for key, value in learn.model.state_dict().items()
    }
    learn.lr_find(num_it=6, show_plot=False)
    for key, value in learn.model.state_dict().items():
        assert torch.equal(value, before[key][0]), key
        assert value.stride() == before[key][1], key
    learn.fit(1)
    assert learn.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("arch", "blocks", "relus"), [(resnet18, 8, 2), (resnet50, 16, 3)])
def test_block_dropout_follows_every_relu_of_every_block(arch, blocks, relus):
    value = Pretrained(arch=arch, weights=None, block_dropout=0.2)
    model = learner(value).model.train()
    order = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU | nn.Dropout):
            module.register_forward_hook(
                lambda module, _, out, name=name: order.append(
                    (
                        name.rpartition(".relu")[0],
                        type(module).__name__,
                        (out == 0).float().mean().item(),
                    )
                )
            )
    model(torch.rand(4, 3, 64, 64))
    stem, *inside = order
    assert stem[:2] == ("", "ReLU")  # the first layer's, which is in no block
    assert len(inside) == 2 * relus * blocks
    for (block, kind, zeros), (same_block, then, more_zeros) in zip(
        inside[::2], inside[1::2], strict=True
    ):
        assert block == same_block
        assert block.startswith("layer")
        assert (kind, then) == ("ReLU", "Dropout")
        if not block.startswith("layer4"):  # of its few activations, a fifth can be far from 0.2
            assert more_zeros == pytest.approx(zeros + 0.2 * (1 - zeros), abs=0.03)


def test_block_dropout_leaves_names_weights_and_answers_as_they_are(body):
    net, path = body
    plain = learner(Pretrained(arch=resnet18, weights=path))
    dropping = learner(Pretrained(arch=resnet18, weights=path, block_dropout=0.5))
    assert list(dropping.model.state_dict()) == list(net.state_dict())
    assert [len(group) for group in parameter_groups(dropping.model)] == [
        len(group) for group in parameter_groups(plain.model)
    ]
    dropping.model.load_state_dict(plain.model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(dropping.model.eval()(x), plain.model.eval()(x))
    dropping.model.train(), plain.model.train()
    assert not torch.equal(dropping.model(x), plain.model(x))
    none = learner(Pretrained(arch=resnet18, weights=path, block_dropout=0.0))
    assert not any(isinstance(module, nn.Dropout) for module in none.model.modules())

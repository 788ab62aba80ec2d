"""Feature maps are what the layers give, and looking at them leaves no trace."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from fastcv import interpret
from fastcv.experiment.building import learner
from fastcv.interpret.activations import mosaic
from fastcv.interpret.style import SMOKE
from fastcv.nets import VGG, LightResNet
from fastcv.recipes.digits import recipe as digits

RESNET_LAYERS = [
    "conv1 Conv2d",
    "bn1 BatchNorm2d",
    "relu ReLU",
    "maxpool MaxPool2d",
    *(f"layer{stage}.{block} BasicBlock" for stage in (1, 2, 3, 4) for block in (0, 1)),
]


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(3)
    net = resnet18(num_classes=10)
    net(torch.rand(4, 3, 32, 32))  # running statistics that differ from their first values
    return net


@pytest.fixture
def image():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(5))


def test_feature_maps_are_what_each_layer_of_a_resnet_gives(resnet, image):
    found = interpret.feature_maps(resnet.eval(), image)
    assert [each.layer for each in found] == RESNET_LAYERS
    x = image[None]
    with torch.no_grad():
        for each in found:
            x = resnet.get_submodule(each.layer.partition(" ")[0])(x.clone())
            np.testing.assert_array_equal(each.maps, x[0].numpy())
    assert (found[1].maps < 0).any()  # not what the ReLU in place made of it


def test_feature_maps_leave_modes_hooks_and_weights_alone(resnet, image):
    resnet.train()
    resnet.layer2.eval()
    modes = [module.training for module in resnet.modules()]
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    seen = interpret.feature_maps(resnet, image)
    assert [module.training for module in resnet.modules()] == modes
    assert not any(module._forward_hooks for module in resnet.modules())
    assert all(torch.equal(before[name], value) for name, value in resnet.state_dict().items())
    in_evaluation = interpret.feature_maps(resnet.eval(), image[None])
    for a, b in zip(seen, in_evaluation, strict=True):
        np.testing.assert_array_equal(a.maps, b.maps)


def test_feature_maps_leave_no_hook_where_the_net_fails(resnet):
    resnet.train()
    with pytest.raises(RuntimeError, match="expected input"):
        interpret.feature_maps(resnet, torch.rand(5, 32, 32))
    assert resnet.training
    assert not any(module._forward_hooks for module in resnet.modules())


def test_feature_maps_of_a_compiled_net_are_those_of_the_plain_one(image):
    net = LightResNet(classes=10, widths=(4, 4), depths=(1, 1), strides=(1, 2))
    plain = interpret.feature_maps(net, image)

    def never(*_):
        raise AssertionError("compiled")

    net.compile(backend=never)
    compiled = interpret.feature_maps(net, image)
    assert [each.layer for each in compiled] == [each.layer for each in plain]
    assert "stages.0.0 BasicBlock" in [each.layer for each in plain]


def test_feature_maps_of_a_long_chain_are_thinned_out(image):
    net = VGG(classes=10)
    everything = interpret.feature_maps(net, image, most=None)
    assert len(everything) == 53
    chosen = interpret.feature_maps(net, image, most=16)
    kinds = [each.layer.partition(" ")[2] for each in chosen]
    assert len(chosen) == 16
    assert set(kinds) == {"ReLU", "MaxPool2d"}
    assert (chosen[0].layer, chosen[-1].layer) == ("features.2 ReLU", "features.52 MaxPool2d")


def test_a_learner_shows_its_net_an_image_as_its_loader_makes_it():
    learn = learner(digits, device="cpu")
    learn.model.train()
    pixels = learn.dls.valid_ds.items[0].image  # (8, 8) uint8
    found = interpret.feature_maps(learn, pixels)
    as_taken = torch.from_numpy(pixels)[None] / 255  # digits are not normalized
    expected = interpret.feature_maps(learn.model, as_taken)
    assert [each.layer for each in found] == [each.layer for each in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.maps, b.maps, atol=1e-6)
    assert learn.model.training
    assert not any("Dropout" in each.layer for each in found)
    figure = interpret.activations(learn, pixels, picture=Image.fromarray(pixels))
    assert len(figure.axes) == 1 + len(found)


def test_activations_have_a_panel_a_layer_beside_the_image(resnet, image):
    picture = Image.fromarray((image.permute(1, 2, 0) * 255).to(torch.uint8).numpy())
    found = interpret.feature_maps(resnet, image)
    figure = interpret.activations(resnet, image, picture=picture)
    beside, *panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == RESNET_LAYERS
    shown = np.asarray(beside.images[0].get_array())
    np.testing.assert_array_equal(shown[::4, ::4], np.asarray(picture))
    for panel, each in zip(panels, found, strict=True):
        drawn = np.ma.filled(panel.images[0].get_array(), np.nan)
        np.testing.assert_array_equal(drawn, mosaic(each.maps[:64]))
        (said,) = [text.get_text() for text in panel.texts]
        count, height, width = each.maps.shape
        assert said.startswith(f"{count} maps of {height} x {width}")
        assert ("the first 64" in said) == (count > 64)
        assert (f"; {each.blank} blank" in said) == (each.blank > 0)
    figure.draw_without_rendering()
    box = figure.axes[-1].get_window_extent()
    assert (round(box.width), round(box.height)) == (263, 263)  # eight maps of 32, seven gaps


def test_activations_say_that_a_run_was_a_smoke_run(resnet, image):
    assert interpret.activations(resnet, image, smoke=True).get_supxlabel() == SMOKE
    assert interpret.activations(resnet, image).get_supxlabel() == ""
    assert len(interpret.activations(resnet, image, most=4).axes) == 4


def test_activations_of_a_net_without_maps_are_refused(image):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert interpret.feature_maps(net, image) == []
    with pytest.raises(ValueError, match=r"layers whose output is a map .* Sequential has none"):
        interpret.activations(net, image)


def test_blank_maps_are_those_that_are_zero_everywhere():
    maps = np.zeros((5, 2, 3), dtype=np.float32)
    maps[1] = 1.0
    maps[3, 1, 2] = -1e-9
    assert interpret.FeatureMaps("a layer", maps).blank == 3


def test_mosaic_enlarges_maps_by_a_whole_factor_and_leaves_gaps():
    maps = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    laid = mosaic(maps, side=30)  # three in a row: 9 pixels each for 3, so threefold
    assert laid.shape == (2 * 7 - 1, 3 * 10 - 1)
    np.testing.assert_array_equal(laid[0:6, 10:19], maps[1].repeat(3, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(laid[7:13:3, 10:19:3], maps[4])
    assert np.isnan(laid[6]).all()
    assert np.isnan(laid[:, 9]).all()
    assert np.isnan(laid[7:, 20:]).all()
    assert mosaic(np.zeros((64, 40, 40))).shape == (8 * 41 - 1, 8 * 41 - 1)  # never made smaller

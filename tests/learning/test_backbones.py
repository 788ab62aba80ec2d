import hashlib
import http.server
import json
import threading
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision.models as tv
from safetensors.torch import save, save_file
from torch import nn

from fastcv.learning import FromScratch, Pretrained, weights
from fastcv.learning.backbones import (
    MOST_GROUPS,
    head_names,
    layer_groups,
    timm_net,
    torchvision_net,
)
from fastcv.learning.origins import Origin, timm_origin, torchvision_origin
from fastcv.nets import BaseNet

TORCHVISION = [
    *(tv.resnet18, tv.convnext_tiny, tv.efficientnet_b0, tv.mobilenet_v2, tv.mobilenet_v3_small),
    *(tv.vit_b_32, tv.swin_t, tv.maxvit_t, tv.densenet121, tv.vgg11, tv.alexnet),
    *(tv.squeezenet1_1, tv.shufflenet_v2_x0_5, tv.mnasnet0_5, tv.googlenet, tv.inception_v3),
]
TIMM = [
    *("efficientnet_lite0", "resnet18", "convnext_atto", "mobilenetv3_small_050", "regnetx_002"),
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
    *("mixer_s32_224", "vgg11", "rdnet_tiny", "hiera_tiny_224", "nfnet_l0"),
]


def data(*, channels=3, size=32, classes=4):
    """All that a model asks its DataLoaders for."""
    return SimpleNamespace(vocab=list(range(classes)), image_shape=(channels, size, size))


def built(value, *, classes=4, channels=3, size=32):
    """The net that a recipe's model builds."""
    build, settings = value.parts(classes=classes, channels=channels, size=size)
    return build(**settings)


def names_of(net, group):
    names = {id(p): name for name, p in net.named_parameters()}
    return [names[id(p)] for p in group]


def check_groups(net, classes):
    groups = layer_groups(net)
    grouped = [id(p) for group in groups for p in group]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters())
    assert 5 <= len(groups) <= MOST_GROUPS
    assert all(groups)
    last = names_of(net, groups[-1])
    assert {name.rpartition(".")[0] for name in last} == set(head_names(net))
    assert all(p.shape[0] == classes for p in groups[-1])
    return groups


@pytest.mark.parametrize("arch", TORCHVISION, ids=lambda arch: arch.__name__)
def test_every_parameter_of_torchvisions_is_in_one_group_and_the_head_is_the_last(arch):
    with torch.device("meta"):
        net = torchvision_net(arch, classes=7, size=224, dropout=0.1)
    check_groups(net, 7)


def test_regnet_too():  # torchvision computes its widths in tensors: not on the meta device
    check_groups(torchvision_net(tv.regnet_y_400mf, classes=7), 7)


@pytest.mark.parametrize("arch", TIMM)
def test_every_parameter_of_timms_is_in_one_group_and_the_head_is_the_last(arch):
    with torch.device("meta"):
        net = timm_net(arch, classes=7, channels=1)
        groups = check_groups(net, 7)
    first = names_of(net, groups[0])
    for name in ("cls_token", "pos_embed", "dist_token"):  # on the net itself
        assert name in first or not hasattr(net, name)


def test_groups_of_a_torchvision_vit_hold_its_token_and_its_positions_first():
    with torch.device("meta"):
        net = torchvision_net(tv.vit_b_32, classes=7, size=64)
    first, second, *_ = (names_of(net, group) for group in layer_groups(net))
    assert "class_token" in first
    assert "encoder.pos_embedding" in first + second
    assert net.encoder.pos_embedding.shape[1] == 5  # of four patches, and the token


@pytest.mark.parametrize(
    ("arch", "size"),
    [(tv.mobilenet_v3_small, 32), (tv.squeezenet1_1, 64)],
)
def test_a_torchvision_net_is_loaded_but_for_its_head(arch, size, tmp_path):
    """Fresh from torchvision and through a file, features are the same."""
    torch.manual_seed(0)
    theirs = arch(weights=None).eval()
    weights.save(theirs, tmp_path / "theirs.safetensors")
    value = Pretrained(arch=arch, weights=tmp_path / "theirs.safetensors")
    net = built(value, size=size).eval()
    value._load(net, 3)
    (head,) = head_names(net)
    own, other = net.get_submodule(head), theirs.get_submodule(head)
    assert own.weight.shape[0] == 4
    x = torch.rand(2, 3, size, size)
    seen = []
    for module in (own, other):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(x), theirs(x)
    torch.testing.assert_close(*seen)


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """An EfficientNet-Lite0 of timm's with 1000 classes, and its file with float16 matrices."""
    torch.manual_seed(3)
    net = timm.create_model("efficientnet_lite0").eval()
    state = {
        key: value.half() if value.ndim > 1 else value
        for key, value in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    path = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    save_file(state, path, metadata={"mean": "0.498 0.498 0.498", "std": "0.502 0.502 0.502"})
    net.load_state_dict(state, strict=False)
    return net, path


@pytest.mark.parametrize("channels", [3, 1])
def test_a_local_file_gives_timms_features_also_of_gray_images(lite, channels):
    theirs, path = lite
    value = Pretrained(arch="efficientnet_lite0", weights=path, dropout=0.2)
    net = built(value, channels=channels, size=64)
    value._load(net, channels)
    assert net.classifier.out_features == 4
    assert net.drop_rate == 0.2
    x = torch.rand(2, channels, 64, 64)
    expected = theirs.forward_features(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(net.eval().forward_features(x), expected, rtol=1e-3, atol=1e-4)


def test_a_file_says_what_it_expects_and_a_run_of_ours_is_not_asked(lite, tmp_path):
    _, path = lite
    origin = Pretrained(arch="efficientnet_lite0", weights=path).origin()
    assert origin.mean == (0.498,) * 3
    assert origin.contradiction((127 / 255,) * 3, (128 / 255,) * 3) is None
    silent = tmp_path / "silent.safetensors"
    weights.save(nn.Linear(2, 2), silent)
    value = Pretrained(arch="efficientnet_lite0", weights=silent)
    assert value.origin().mean == (0.485, 0.456, 0.406)  # timm's
    (tmp_path / "model.json").write_text("{}")
    assert value.origin().mean is None


def test_weights_of_timm_are_named_by_tag_in_arch_or_weights():
    tagged = Pretrained(arch="convnext_tiny.in12k_ft_in1k")
    assert tagged.weights == "in12k_ft_in1k"
    assert Pretrained(arch="efficientnet_lite0").weights == "DEFAULT"
    assert Pretrained(arch="efficientnet_lite0", weights=None).weights is None
    _, settings = Pretrained(arch="efficientnet_lite0").parts(classes=2, channels=3, size=64)
    assert settings["arch"] == "efficientnet_lite0.ra_in1k"
    older = Pretrained(arch="vit_tiny_patch16_224_in21k")
    _, settings = older.parts(classes=2, channels=3, size=224)
    assert settings["arch"] == "vit_tiny_patch16_224.augreg_in21k"
    assert any("vit_tiny_patch16_224.augreg_in21k today" in line for line in older.origin().lines())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Pretrained(arch="efficentnet_lite0"), "Did you mean 'efficientnet_lite0'"),
        (Pretrained(arch="resnet50.a9_in1k"), "'resnet50' has no weights 'a9_in1k'"),
        (Pretrained(arch="resnet50.a1_in1k", weights="a2_in1k"), "set weights='a1_in1k'"),
        (Pretrained(arch="efficientnet_lite1"), "has no weights 'untrained'"),
        (Pretrained(arch="hf-hub:timm/resnet18"), "timm has no model"),
    ],
)
def test_a_wrong_name_of_timms_is_one_sentence(value, message):
    with pytest.raises(ValueError, match=message) as refused:
        value.parts(classes=2, channels=3, size=64)
    assert "\n" not in str(refused.value)


def test_licenses_are_said_and_that_some_forbid_commercial_use():
    lines = timm_origin("convnextv2_tiny", "DEFAULT").lines()
    assert "license: cc-by-nc-4.0" in lines[0]
    assert "no commercial use" in lines[1]
    assert "bicubic" in lines[2]
    plain = torchvision_origin(tv.resnet18, "IMAGENET1K_V1")
    assert plain.lines() == [
        "weights: torchvision's IMAGENET1K_V1 of resnet18; license: BSD-3-Clause"
    ]
    swag = torchvision_origin(tv.vit_b_16, "IMAGENET1K_SWAG_E2E_V1")
    assert (swag.license, swag.size) == ("cc-by-nc-4.0", 384)


def test_other_statistics_and_sizes_are_refused_with_what_to_write():
    origin = timm_origin("vit_tiny_patch16_224", "augreg_in21k_ft_in1k")
    assert "normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))" in origin.contradiction(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert origin.contradiction((0.5,), (0.5,)) is None  # one for all channels
    assert "mean 0 and std 1" in origin.contradiction((0.0,), (1.0,))
    origin.check_size(224)
    with pytest.raises(ValueError, match="set size=224 in its data"):
        origin.check_size(192)
    assert Origin(name="x").contradiction((0.1,), (0.1,)) is None


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download asks for: one file."""

    content = b""

    def do_HEAD(self):
        self._reply()

    def do_GET(self):
        self._reply()
        self.wfile.write(self.content)

    def _reply(self):
        found = self.path == "/timm/test_efficientnet.r160_in1k/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_timms_weights_are_fetched_from_the_hub_with_a_new_head(tmp_path, monkeypatch):
    theirs = timm.create_model("test_efficientnet")
    monkeypatch.setattr(Hub, "content", save(theirs.state_dict()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.ENDPOINT", url, raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        value = Pretrained(arch="test_efficientnet", weights="r160_in1k")
        from fastcv.learning.backbones import fetched_timm_net

        _, settings = value.parts(classes=1000, channels=3, size=64)
        net = fetched_timm_net(**settings)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert torch.equal(net.conv_stem.weight, theirs.conv_stem.weight)
    assert not torch.equal(net.classifier.weight, theirs.classifier.weight)


def test_timms_weights_without_a_network_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"must come whole .* give the path") as refused:
        Pretrained(arch="test_efficientnet")(data(size=64))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("net", "classes"),
    [(tv.mobilenet_v3_small, 10), (timm.create_model("test_vit").__class__, 10)],
    ids=["torchvision", "class of timm's"],
)
def test_from_scratch_tells_a_foreign_net_the_number_of_classes(net, classes):
    _, settings = FromScratch(net=net).parts(classes=classes, channels=3, size=32)
    assert settings["num_classes"] == classes
    assert "classes" not in settings
    assert settings.get("in_chans", 3) == 3


def test_from_scratch_trains_torchvisions_net_on_as_many_outputs_as_classes():
    net = built(FromScratch(net=tv.mobilenet_v3_small), classes=10)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"mobilenet_v3_small takes images of 3 channels, got 1"):
        built(FromScratch(net=tv.mobilenet_v3_small), channels=1)
    with pytest.raises(ValueError, match="'num_classes' comes from the data"):
        built(FromScratch(net=tv.mobilenet_v3_small, settings={"num_classes": 3}))


def test_our_nets_are_told_as_before():
    ends = {"classes": 4, "channels": 1, "size": 28}
    assert FromScratch(net=BaseNet).parts(**ends) == (BaseNet, ends)


def too_wide(*, classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes + 1))


def test_a_net_of_another_width_is_refused_before_it_trains():
    with pytest.raises(ValueError, match=r"must give a logit for each of 4 .*got \(2, 5\)"):
        FromScratch(net=too_wide)(data())


def test_the_check_of_the_output_leaves_net_and_random_numbers_alone():
    from fastcv.learning.backbones import check_output

    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 3)
    )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_output(net, "net", classes=3, channels=3, size=4)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training


def test_a_run_of_timms_net_is_described_and_built_again(tmp_path):
    import fastcv
    from fastcv.experiment.trained import describe
    from fastcv.predict.trained import TrainedModel

    digits = fastcv.get_recipe("digits")
    model = Pretrained(arch="test_efficientnet", weights=None)
    recipe = fastcv.replace(digits, model=model, data=fastcv.replace(digits.data, size=32))
    described = describe(recipe, "ab", precision="fp32")
    net = described.net(**described.settings)
    weights.save(net, tmp_path / "model.safetensors")
    described.write(tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["net"] == "fastcv.learning:timm_net"
    again = TrainedModel.read(tmp_path).build(tmp_path)
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(again(x), net.eval()(x))
    named = describe(
        fastcv.replace(recipe, model=Pretrained(arch="convnextv2_tiny")), "ab", precision="fp32"
    )
    assert named.weights_license == "cc-by-nc-4.0"


def test_a_recipe_whose_images_contradict_the_weights_is_refused_before_its_data_is_read():
    import fastcv
    from fastcv.experiment.building import refuse_other_images

    recipe = fastcv.get_recipe("transfer_efficientnet")
    assert refuse_other_images(recipe) is None
    other = fastcv.replace(recipe, data=fastcv.replace(recipe.data, normalize=None))
    with pytest.raises(ValueError, match=r"normalize=Normalize\(mean=\(0.5, 0.5, 0.5\)"):
        fastcv.learner(other, device="cpu")
    fixed = fastcv.override(recipe, "model.arch=swin_tiny_patch4_window7_224", "data.size=192")
    fixed = fastcv.override(fixed, "data.normalize=IMAGENET_STATS")
    fixed = fastcv.override(fixed, "model.weights=ms_in1k")
    assert fixed.model.arch == "swin_tiny_patch4_window7_224"
    with pytest.raises(ValueError, match="set size=224 in its data"):
        fastcv.learner(fixed, device="cpu")
    # Report 002 normalized with the statistics of its birds.
    report = fastcv.get_recipe("transfer_resnet18_crops")
    assert "expects images of other statistics" in refuse_other_images(report)


def test_available_lists_what_there_is_and_whether_it_is_here(tmp_path, monkeypatch):
    from fastcv.learning.available import available

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    found = {(each.arch, each.weights): each for each in available()}
    assert {each.library for each in found.values()} == {"torchvision"}
    assert [key for key, each in found.items() if each.here] == [("resnet18", "IMAGENET1K_V1")]
    assert found["resnet18", "IMAGENET1K_V1"].parameters == 11_689_512
    lite, tf_lite = available("*efficientnet_lite0*")
    assert (lite.arch, lite.parameters, lite.size) == ("efficientnet_lite0.ra_in1k", 4_652_008, 224)
    assert (tf_lite.origin.license, tf_lite.here) == ("apache-2.0", False)
    with pytest.raises(ValueError, match="no pretrained net matches 'efficientnet_lite9'"):
        available("efficientnet_lite9")

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastcv.data.decoding import Decoding
from fastcv.nets import MnistCNN
from fastcv.predict import Predictor, TrainedModel, export, resize_for_export

CLASSES = ("cat", 'dog "& <owl>', "ü")
MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I")


def onnxruntime():
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    return pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def predictor_of(net, **values):
    model = TrainedModel(
        name="photos",
        net=MnistCNN,
        settings={"classes": 3, "channels": 3, "size": 8},
        classes=CLASSES,
        channels=3,
        size=8,
        resize=11,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        precision="bf16",
        temperature=0.2,
    )
    model = dataclasses.replace(model, **values)
    return Predictor(model, net.eval(), torch.device("cpu"))


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    net = MnistCNN(classes=3, channels=3, size=8)
    return predictor_of(net.to(memory_format=torch.channels_last))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (70, 11, 11, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def exported(request, predictor, pixels, tmp_path_factory):
    """Format, folder and what was measured."""
    if request.param == "onnx":
        onnxruntime()
    folder = tmp_path_factory.mktemp(request.param) / "export"
    found = export.export(predictor, folder, to=request.param, pixels=pixels)
    return request.param, folder, found


def expected(predictor, pixels):
    """The probabilities by torchvision's words: crop, scale, normalize, the net, softmax."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()[..., 2:10, 2:10] / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        logits = predictor.net.float()(((x - mean) / std).float())
    return (logits / 0.2).softmax(1).numpy()


@pytest.mark.parametrize("images", [1, 2, 7, 70])
def test_exported_files_take_bytes_of_any_batch_and_answer_with_probabilities(
    exported, predictor, pixels, images
):
    to, folder, _ = exported
    found = export.runner(folder / f"model.{to}")(pixels[:images])
    assert found.shape == (images, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(found, expected(predictor, pixels[:images]), atol=1e-5)
    assert found.std(axis=0).min() > 1e-3 or images < 7  # the images decide


def test_an_export_is_measured_against_torch(exported, pixels):
    _, folder, found = exported
    assert found.images == len(pixels)
    assert 0 <= found.largest_difference < 1e-5
    assert found.equal_classes == 1
    assert sorted(file.name for file in folder.iterdir()) == [f"model.{exported[0]}", "resize.py"]


def test_an_exported_file_holds_its_classes_and_model_json(exported, predictor, tmp_path):
    to, folder, _ = exported
    if to == "onnx":
        session = onnxruntime().InferenceSession(folder / "model.onnx")
        texts = session.get_modelmeta().custom_metadata_map
    else:
        texts = {"classes.json": "", "model.json": ""}
        torch.export.load(folder / "model.pt2", extra_files=texts)
    assert tuple(json.loads(texts["classes.json"])) == CLASSES
    (tmp_path / "model.json").write_text(texts["model.json"], encoding="utf-8")
    assert TrainedModel.read(tmp_path) == predictor.model


def test_quantizing_keeps_the_metadata_and_most_answers(exported, predictor, pixels):
    to, folder, _ = exported
    if to == "pt2":
        pytest.skip("only ONNX files are quantized")
    small = export.quantize(folder, pixels)
    assert small.stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size
    metadata = [
        onnxruntime().InferenceSession(file).get_modelmeta().custom_metadata_map
        for file in (small, folder / "model.onnx")
    ]
    assert metadata[0]["model.json"] == metadata[1]["model.json"]
    run = export.runner(small)
    found, wanted = run(pixels), expected(predictor, pixels)
    assert 0 < np.abs(found - wanted).max() < 0.2
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9
    assert run(pixels[:1]).shape == (1, 3)
    small.unlink()
    assert not list(folder.glob(".*"))


def test_quantized_activations_take_the_range_that_their_relu6_leaves(pixels, tmp_path):
    onnxruntime()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
    )
    net[0].weight.data *= 60  # before the ReLU6 from about -200 to 200
    predictor = predictor_of(net, temperature=0.2)
    export.export(predictor, tmp_path / "export", to="onnx", pixels=pixels)
    found = export.runner(export.quantize(tmp_path / "export", pixels))(pixels)
    assert np.abs(found - expected(predictor, pixels)).max() < 0.04


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_an_export_that_differs_from_torch_fails_and_leaves_the_older_file(
    predictor, pixels, tmp_path, monkeypatch, factor
):
    class Wrong(export.BytesToProbabilities):
        def forward(self, pixels):
            return super().forward(pixels) * factor

    monkeypatch.setattr(export, "BytesToProbabilities", Wrong)
    with pytest.raises(ValueError, match=r"within 0\.0001, but model\.pt2 differs by .* removed"):
        export.export(predictor, tmp_path / "none", to="pt2", pixels=pixels)
    assert not list((tmp_path / "none").iterdir())
    (tmp_path / "model.pt2").write_bytes(b"older")
    with pytest.raises(ValueError, match="was removed"):
        export.export(predictor, tmp_path, to="pt2", pixels=pixels)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_bytes() == b"older"


def test_an_export_leaves_the_predictor_as_it_was(predictor, pixels, tmp_path):
    before = predictor.probabilities(pixels[:4])
    export.export(predictor, tmp_path, to="pt2", pixels=pixels[:4])
    assert np.array_equal(predictor.probabilities(pixels[:4]), before)


class Brightest(nn.Module):
    """A net whose path depends on its images."""

    def forward(self, x):
        return x.mean((2, 3)) if x.max() > 0.5 else x.amax((2, 3))


def test_a_net_that_cannot_be_traced_is_refused_in_one_sentence(pixels, tmp_path):
    predictor = predictor_of(Brightest())
    with pytest.raises(ValueError, match=r"traceable by torch\.export, fastcv") as refused:
        export.export(predictor, tmp_path, to="pt2", pixels=pixels)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_one_sentence_before_anything_is_written(
    predictor, pixels, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'fastcv\[onnx\]'"):
        export.export(predictor, tmp_path / "new", to="onnx", pixels=pixels)
    assert not (tmp_path / "new").exists()


def test_an_unknown_format_and_no_images_are_refused(predictor, pixels, tmp_path):
    with pytest.raises(ValueError, match="to must be one of onnx, pt2, got 'tflite'"):
        export.export(predictor, tmp_path, to="tflite", pixels=pixels)
    with pytest.raises(ValueError, match="real images, got none"):
        export.export(predictor, tmp_path, to="pt2", pixels=pixels[:0])


def test_a_place_that_is_no_folder_is_refused_in_one_sentence(predictor, pixels, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match="an export must go into a folder that can be written to"):
        export.export(predictor, tmp_path / "taken", to="pt2", pixels=pixels)


def test_exporting_needs_no_fastai():
    code = "import sys, fastcv.predict.export; assert 'fastai' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def pictures(mode):
    """Pictures of a mode, in many sizes."""
    random = np.random.default_rng(len(mode))
    sizes = [*random.integers(1, 90, (40, 2)).tolist(), [32, 32], [64, 32], [33, 32], [31, 200]]
    for width, height in sizes:
        if mode.startswith("I"):
            levels = random.integers(0, 65_536, (height, width))
            yield Image.fromarray(levels.astype(np.uint16 if mode == "I;16" else np.int32))
            continue
        if mode in ("RGBA", "LA", "PA"):
            pixels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
            picture = Image.fromarray(pixels, "RGBA")
            if mode == "PA":
                picture = picture.convert("RGB").convert("P").convert("PA")
            yield picture if mode != "LA" else picture.convert("LA")
            continue
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if mode == "LAB":
            yield Image.frombytes("LAB", (width, height), pixels.tobytes())
        else:
            yield Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("mode", MODES)
def test_the_shipped_resize_is_that_of_training(mode, channels):
    for side in (8, 32):
        decode = Decoding(side=side, channels=channels)
        for picture in pictures(mode):
            ours = resize_for_export.pixels(picture, side, channels)
            assert ours.shape == (side, side, channels)
            assert np.array_equal(ours, decode(picture)), (mode, picture.size, side)


def test_the_shipped_resize_goes_by_a_larger_square_where_training_did():
    for picture in pictures("RGB"):
        ours = resize_for_export.pixels(picture, 32, decode_size=40)
        assert np.array_equal(ours, Decoding(side=32, channels=3, via=40)(picture)), picture.size


def test_the_shipped_resize_reads_files_as_training_does(tmp_path):
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (50, 71, 3), dtype=np.uint8))
    sixteen = Image.fromarray(random.integers(0, 65_536, (40, 60)).astype(np.uint16))
    picture.save(tmp_path / "a.jpg")
    picture.convert("P").save(tmp_path / "transparent.png", transparency=7)
    picture.convert("P").save(tmp_path / "first.gif", save_all=True, append_images=[picture])
    sixteen.save(tmp_path / "sixteen.png")
    sixteen.save(tmp_path / "sixteen.tif")
    for file in sorted(tmp_path.iterdir()):
        for channels in (1, 3):
            theirs = Decoding(side=24, channels=channels)(file)
            for kind in (file, str(file)):
                assert np.array_equal(resize_for_export.pixels(kind, 24, channels), theirs), file


def test_the_shipped_resize_turns_photos_upright_where_the_net_was_trained_so(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the photo is to be turned by 270 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = resize_for_export.pixels(tmp_path / "turned.png", 40, upright=True)
    assert np.array_equal(found, np.rot90(pixels, 3)[10:50])
    found = resize_for_export.pixels(tmp_path / "turned.png", 40)
    assert np.array_equal(found, pixels[:, 10:50])


def test_the_shipped_resize_is_one_short_file_of_numpy_and_pillow():
    source = Path(resize_for_export.__file__).read_text(encoding="utf-8")
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
    }
    assert imported == {"numpy", "PIL"}
    assert len(source.splitlines()) < 50

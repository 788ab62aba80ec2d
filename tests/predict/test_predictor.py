import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastcv
from fastcv.augment import Normalize
from fastcv.data import ImageFolders, Images
from fastcv.experiment.trained import describe, load
from fastcv.learning import FromScratch, weights
from fastcv.nets import LightResNet
from fastcv.predict.predictor import Unreadable
from fastcv.predict.trained import NAME, TrainedModel

OLDER = Path(__file__).parent.parent / "older" / "finished"
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs of three classes, of many sizes and kinds."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for index in range(10):
            height, width = random.integers(40, 90, 2)
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            pixels[..., number] = 255
            picture = Image.fromarray(pixels)
            if index == 1:
                picture = picture.convert("L")
            picture.save(folder / name / f"{index}.{'png' if index % 2 else 'jpg'}")
    return folder


@pytest.fixture(scope="module")
def recipe(photos):
    digits = fastcv.get_recipe("digits")
    return fastcv.replace(
        digits,
        name="photos",
        data=Images(
            source=ImageFolders(path=photos, valid=0.5),
            size=32,
            resize=36,
            batch_size=4,
            normalize=Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
        ),
        model=FromScratch(net=LightResNet, settings={"widths": (4, 4, 8, 8)}),
    )


@pytest.fixture(scope="module")
def learn(recipe):
    made = fastcv.learner(fastcv.replace(recipe, precision="fp32"), device="cpu")
    for module in made.model.modules():  # as after a training, not of zeros and ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def run(learn, recipe, tmp_path_factory):
    """A folder with what a run keeps of its model."""
    folder = tmp_path_factory.mktemp("run")
    weights.save(learn.model, folder / "model.safetensors")
    describe(recipe, learn.dls.vocab, precision="fp32").write(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(run):
    return load(run, device="cpu")


def validated(learn):
    """Paths of the validation images, in the order of `get_preds`."""
    return [sample.image for sample in learn.dls.valid.items]


def test_preprocessing_is_validations_to_the_bit(learn, predictor):
    paths = validated(learn)
    (x, _), *_ = list(learn.dls.valid.new(bs=len(paths)))
    ours = torch.stack([predictor.transform(path) for path in paths])
    assert torch.equal(ours, x.as_subclass(torch.Tensor))
    assert ours.shape == (len(paths), 3, 32, 32)


def test_preprocessing_of_turned_photos_is_validations_to_the_bit(recipe, tmp_path):
    random = np.random.default_rng(1)
    for number in range(16):
        exif = Image.Exif()
        exif[0x0112] = 1 + number // 2
        path = tmp_path / "photos" / CLASSES[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (45, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, exif=exif)
    source = ImageFolders(path=tmp_path / "photos", valid=0.5)
    for settings in ({"upright": True}, {"upright": True, "decode_size": 40}, {}):
        data = fastcv.replace(recipe.data, source=source, **settings)
        mine = fastcv.replace(recipe, data=data, precision="fp32")
        learn = fastcv.learner(mine, device="cpu")
        folder = tmp_path / f"run{len(settings)}"
        folder.mkdir()
        weights.save(learn.model, folder / "model.safetensors")
        describe(mine, learn.dls.vocab, precision="fp32").write(folder)
        paths = validated(learn)
        (x, _), *_ = list(learn.dls.valid.new(bs=len(paths)))
        predictor = load(folder, device="cpu")
        ours = torch.stack([predictor.transform(path) for path in paths])
        assert torch.equal(ours, x.as_subclass(torch.Tensor))
        assert predictor.model.upright == data.upright


def test_probabilities_are_those_of_the_learner(learn, predictor):
    expected, _ = learn.get_preds(ds_idx=1)
    found = predictor(validated(learn), batch_size=4)
    ours = np.stack([each.probabilities for each in found])
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-6)
    assert predictor.classes == CLASSES
    assert [each.path for each in found] == validated(learn)


def test_every_kind_of_image_gives_the_same_answer(predictor, photos):
    path = photos / "dog" / "3.png"
    picture = Image.open(path)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = (path, str(path), picture, array, tensor, tensor / 255)
    first, *others = [predictor(each).probabilities for each in kinds]
    assert all(np.array_equal(first, each) for each in others)
    for several in ([path], array[None], tensor[None], (each for each in [path])):
        (only,) = predictor(several)
        assert np.array_equal(only.probabilities, first)


def test_a_folder_is_all_its_images_in_order(predictor, photos):
    found = predictor(photos)
    assert len(found) == 30
    assert [each.path for each in found] == sorted(photos.glob("[!.]*/*"))


def test_a_folder_is_read_without_what_training_ignores(predictor, photos, tmp_path):
    root = tmp_path / ".hidden" / "photos"  # above the folder it does not count
    for name in ("2023", "2024/.thumbnails", "__MACOSX/2023", ".trash", "2024"):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.open(photos / "cat" / "0.jpg").save(root / name / "a.jpg")
        Image.open(photos / "cat" / "0.jpg").save(root / name / "._a.jpg")
    found = [each.path.relative_to(root).as_posix() for each in predictor(root)]
    assert found == ["2023/a.jpg", "2024/a.jpg"]


def test_a_prediction_names_its_likeliest_classes(predictor, photos):
    found = predictor(photos / "owl" / "0.jpg")
    top = found.top(2)
    assert top[0] == (found.label, found.probability)
    assert top[0][1] >= top[1][1]
    assert len(found.top(9)) == 3
    assert found.label in repr(found)


def test_a_damaged_file_is_named_and_the_rest_goes_on(predictor, photos, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes((photos / "cat" / "0.jpg").read_bytes()[:200])
    good = photos / "cat" / "0.jpg"
    found = list(predictor.stream([good, damaged, tmp_path / "gone.png", good], batch_size=2))
    assert [isinstance(each, Unreadable) for each in found] == [False, True, True, False]
    assert str(damaged) in found[1].reason
    assert found[2].path == tmp_path / "gone.png"
    with pytest.raises(ValueError, match=r"damaged\.jpg"):
        predictor(damaged)


def test_images_are_read_as_they_are_needed(predictor, photos):
    asked = []

    def images():
        for number in range(1000):
            asked.append(number)
            yield photos / "cat" / "0.jpg"

    stream = predictor.stream(images(), batch_size=4)
    next(stream)
    assert len(asked) < 100
    stream.close()


def test_a_temperature_softens_the_probabilities(run, photos):
    plain = load(run, device="cpu")
    softer = load(run, device="cpu")
    object.__setattr__(softer.model, "temperature", 3.0)
    path = photos / "cat" / "2.jpg"
    logits = torch.log(torch.tensor(plain(path).probabilities))
    expected = (logits / 3).softmax(0).numpy()
    np.testing.assert_allclose(softer(path).probabilities, expected, atol=1e-5)


def test_loading_needs_neither_fastai_nor_the_data(run, photos):
    code = (
        "import sys, fastcv\n"
        f"predictor = fastcv.load({str(run)!r}, device='cpu')\n"
        f"print(predictor({str(photos / 'cat' / '0.jpg')!r}).label)\n"
        "assert 'fastai' not in sys.modules, 'fastai was imported'\n"
    )
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() in CLASSES


def test_an_older_run_is_loaded_through_its_recipe():
    from sklearn.datasets import load_digits

    predictor = load(OLDER, device="cpu")
    assert predictor.classes == tuple("0123456789")
    levels, targets = load_digits(return_X_y=True)
    images = np.rint(levels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    found = predictor(list(images), batch_size=512)
    right = [each.label == str(target) for each, target in zip(found, targets, strict=True)]
    assert np.mean(right) > 0.98


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"net": "os:system"}, "a run may only name what fastcv exports"),
        ({"settings": {"widths": "os:system"}}, "a run may only name what fastcv exports"),
        ({"format": 99}, "its format must be 1"),
        ({"surprise": 1}, "it holds surprise"),
        ({"classes": None}, "must describe a trained model"),
        ({"sha256": "0" * 64}, "SHA-256 sum of '.*model.safetensors' differs"),
        ({"settings": {}}, "must describe|missing"),
    ],
)
def test_a_damaged_or_hostile_model_is_refused_in_one_sentence(run, tmp_path, values, message):
    import json
    import shutil

    folder = shutil.copytree(run, tmp_path / "copy")
    written = json.loads((folder / NAME).read_text(encoding="utf-8"))
    (folder / NAME).write_text(json.dumps(written | values), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        load(folder, device="cpu")
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"a trained model must come with model\.json"):
        load(tmp_path)


def test_a_pretrained_net_is_described_with_its_architecture(tmp_path):
    from torchvision.models import resnet18

    from fastcv.learning import Pretrained

    model = Pretrained(arch=resnet18, weights=None, dropout=0.2)
    digits = fastcv.get_recipe("digits")
    recipe = fastcv.replace(digits, model=model, data=fastcv.replace(digits.data, size=32))
    described = describe(recipe, "ab", precision="fp32")
    net = described.net(**described.settings)
    weights.save(net, tmp_path / "model.safetensors")
    described.write(tmp_path)
    again = TrainedModel.read(tmp_path)
    assert again.net is described.net
    assert again.settings["arch"] is resnet18
    built = again.build(tmp_path)
    x = torch.randn(2, 1, 32, 32)
    assert torch.allclose(built(x), net.eval()(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*insecure pickle.*:UserWarning")
def test_an_exported_learner_predicts_as_the_run_it_came_from(tmp_path):
    """fastai's way to take a net away, beside model.json: no images, no bar, the same answers."""
    from fastai.learner import load_learner

    learn = fastcv.Run(OLDER).learner(device="cpu")
    learn.export(tmp_path / "learner.pkl")
    images = [sample.image for sample in learn.dls.valid_ds.items[:5]]
    loaded = load_learner(tmp_path / "learner.pkl")
    assert len(loaded.dls.train_ds) == 0
    found, _ = loaded.get_preds(dl=loaded.dls.test_dl(images, num_workers=0))
    predictor = load(OLDER, device="cpu")
    ours = np.stack([each.probabilities for each in predictor(images)])
    np.testing.assert_allclose(found, learn.get_preds()[0][:5], atol=1e-6)
    np.testing.assert_allclose(found, ours, atol=5e-3)  # the run was in bf16, this may be fp32
    assert loaded.predict(images[0])[0] == predictor(images[0]).label

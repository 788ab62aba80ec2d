import copy
import random
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import IntToFloatTensor
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.metrics import accuracy
from fastai.torch_core import TensorCategory, TensorImage, TensorImageBW, set_seed
from fastai.vision import learner as vision_learner
from fastai.vision.augment import Brightness
from fasttransform import Transform
from PIL import Image
from torch import nn
from torchvision.transforms import functional as T

from fastcv.augment import (
    ColorJitter,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    Rotation,
)
from fastcv.data import CIFAR10_STATS, ImageFolders, Toy
from fastcv.data.decoding import read_image
from fastcv.data.images import Images
from fastcv.data.loader import ReadImage
from fastcv.data.samples import Sample

mpl.use("Agg")
assert vision_learner  # it registers how images are shown

# matplotlib copies fastai's tensors in a way that torch's tensors do not know yet.
shows_images = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 12
TOY = Toy(classes=4, size=SIZE, train=10, test=5)
IMAGES = Images(
    source=TOY,
    size=SIZE,
    batch_size=16,
    holdout=3,
    augment=(RandomCrop(padding=4), HorizontalFlip()),
    normalize=CIFAR10_STATS,
)


def _batches(dls):
    return [batch for dl in dls.loaders for batch in dl]


def _identical(first, second):
    return all(
        type(a) is type(b) and torch.equal(a, b)
        for left, right in zip(first, second, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    set_seed(0)
    dls = IMAGES("cpu")
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))
    learner = Learner(dls, net, metrics=accuracy, path=tmp_path_factory.mktemp("learner"))
    learner.remove_cb(ProgressCallback)
    with learner.no_logging():
        learner.fit(10, 0.005)
    return learner


def _true_classes(learn, part):
    return [learn.dls.vocab.o2i[sample.label] for sample in learn.dls[part].dataset.items]


def test_learner_fits(learn):
    assert learn.validate()[1] > 0.9
    assert all(dl.decoded is not None for dl in learn.dls.loaders)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_get_preds_is_in_the_order_of_the_data_set(learn, part):
    predicted, target = learn.get_preds(ds_idx=part)
    assert target.tolist() == _true_classes(learn, part)
    # Training images are augmented here as in fastai, so that they are harder.
    assert (predicted.argmax(1) == target).float().mean() > (0.9 if part else 0.5)


def test_get_preds_of_a_shuffled_loader_is_in_the_order_of_the_data_set(learn):
    shuffled = learn.dls[2].new(shuffle=True)
    assert shuffled.decoded is not None
    predicted, target = learn.get_preds(dl=shuffled)
    expected, _ = learn.get_preds(ds_idx=2)
    assert target.tolist() == _true_classes(learn, 2)
    torch.testing.assert_close(predicted, expected)


@shows_images
def test_images_are_shown(learn):
    learn.dls.show_batch(max_n=4)
    learn.dls.train.show_batch(unique=True, max_n=4)
    learn.dls.valid.show_batch(max_n=4)
    learn.show_results(max_n=4)
    interpretation = ClassificationInterpretation.from_learner(learn)
    interpretation.plot_top_losses(3)
    assert interpretation.confusion_matrix().sum() == 12
    mpl.pyplot.close("all")


def test_shown_pixels_are_the_images_own(learn):
    batch = learn.dls.valid.one_batch()
    shown = learn.dls.valid.decode(batch)[0]
    own = np.stack([sample.image for sample in learn.dls.valid_ds.items])
    assert np.array_equal(shown.permute(0, 2, 3, 1).numpy(), own)


def test_unique_shows_one_image_in_different_augmentations(learn):
    dl = learn.dls.train.new(get_idxs=lambda: iter([5] * 40))
    x, y = dl.one_batch()
    assert len(x) == 16
    assert set(y.tolist()) == {_true_classes(learn, 0)[5]}
    assert not torch.equal(x[0], x[1])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, iter])
def test_order_of_any_kind_drops_the_last_batch_as_fastai_does(learn, kind):
    dl = learn.dls.train.new(bs=5, get_idxs=lambda: kind(list(range(12))))
    assert [len(x) for x, _ in dl] == [5, 5]
    dl = dl.new(drop_last=False, get_idxs=dl.get_idxs)
    assert [len(x) for x, _ in dl] == [5, 5, 2]


def test_tta_augments_the_validation_images(learn):
    set_seed(0)
    predicted, target = learn.tta(n=2)
    plain, _ = learn.get_preds()
    assert target.tolist() == _true_classes(learn, 1)
    assert not torch.equal(predicted, plain)
    assert torch.equal(plain, learn.get_preds()[0])  # and leaves no trace


@pytest.mark.parametrize("kind", ["array", "pillow", "path", "string", "tensor", "floats"])
def test_predict_takes_an_image_of_any_kind(learn, tmp_path, kind):
    place = 7
    pixels = learn.dls[2].dataset.items[place].image
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    given = {
        "array": pixels,
        "pillow": Image.fromarray(pixels),
        "path": path,
        "string": str(path),
        "tensor": TensorImage(torch.from_numpy(pixels).permute(2, 0, 1)),
        "floats": T.to_tensor(pixels),
    }[kind]
    name, _, probabilities = learn.predict(given)
    expected = learn.get_preds(ds_idx=2)[0][place]
    torch.testing.assert_close(probabilities, expected)
    assert name == learn.dls.vocab[expected.argmax()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["transparent", "deep", "palette", "plain"])
def test_pictures_are_read_as_their_files_are(tmp_path, kind, channels):
    random = np.random.default_rng(0)
    path = tmp_path / "image.png"
    if kind == "palette":
        picture = Image.fromarray(random.integers(0, 3, (8, 8), dtype=np.uint8)).convert("P")
        picture.putpalette([9, 9, 9, 200, 0, 0, 0, 90, 0])
        picture.save(path, transparency=0)
    else:
        shape, kind_of_number = {
            "transparent": ((8, 8, 4), np.uint8),
            "deep": ((8, 8), np.uint16),
            "plain": ((8, 8, 3), np.uint8),
        }[kind]
        most = np.iinfo(kind_of_number).max
        Image.fromarray(random.integers(0, most, shape, dtype=kind_of_number)).save(path)
    with Image.open(path) as picture:
        before = type(picture), picture.mode
        got = ReadImage(channels).encodes(picture)
        assert (type(picture), picture.mode) == before
    assert np.array_equal(np.asarray(got), np.asarray(read_image(path, channels)))


def test_one_channel_of_any_number_is_read_as_bytes():
    gray = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    tensor = torch.from_numpy(gray)[None]
    for given in (tensor, tensor.long(), tensor / 255, tensor.double() / 255, gray[..., None]):
        assert np.array_equal(np.asarray(ReadImage(1).encodes(given)), gray)
    for other in (tensor.long() + 1000, tensor.float(), tensor / 255 - 0.1):
        with pytest.raises(ValueError, match=r"pixels must be uint8, or floats of 0-1"):
            ReadImage(1).encodes(other)


def test_test_dl_reads_new_images_one_by_one(learn):
    items = learn.dls[2].dataset.items
    unlabeled = learn.dls.test_dl([sample.image for sample in items])
    labeled = learn.dls.test_dl(items, with_labels=True)
    assert unlabeled.decoded is None
    assert labeled.decoded is None
    expected, target = learn.get_preds(ds_idx=2)
    torch.testing.assert_close(learn.get_preds(dl=unlabeled)[0], expected)
    assert torch.equal(learn.get_preds(dl=labeled)[1], target)
    renewed = unlabeled.new(bs=3)
    torch.testing.assert_close(learn.get_preds(dl=renewed)[0], expected)


@pytest.mark.filterwarnings("ignore:load_learner:UserWarning")
@pytest.mark.filterwarnings("ignore:.*insecure pickle.*:UserWarning")
def test_export_leaves_the_pixels_out(learn):
    learn.export("net.pkl")
    path = learn.path / "net.pkl"
    some = learn.dls.valid_ds.items[0].image.tobytes()
    assert some not in path.read_bytes()
    loaded = load_learner(path)
    image = learn.dls[2].dataset.items[3].image
    assert loaded.predict(image)[0] == learn.predict(image)[0]


def test_copied_loader_reads_the_same_images_without_the_decoded_ones(learn):
    dl = learn.dls.valid
    copied = copy.deepcopy(dl)
    assert dl.decoded is not None
    assert copied.decoded is None
    assert _identical(list(dl), list(copied))


@pytest.mark.parametrize("statistics", [None, Normalize(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))])
def test_batches_without_augmentation_equal_torchvisions(statistics):
    dls = replace(IMAGES, augment=(), normalize=statistics)("cpu")
    x, y = dls.valid.one_batch()
    items = dls.valid_ds.items
    expected = torch.stack([T.to_tensor(sample.image) for sample in items])
    if statistics is not None:
        expected = T.normalize(expected, statistics.mean, statistics.std)
    torch.testing.assert_close(x.as_subclass(torch.Tensor), expected)
    assert y.tolist() == [dls.vocab.o2i[sample.label] for sample in items]
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "augment",
    [
        (),
        (RandomCrop(padding=2), HorizontalFlip()),
        (
            Rotation(degrees=10),
            HorizontalFlip(),
            ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ),
        (RandomResizedCrop(size=SIZE, scale=(0.5, 1)),),
    ],
)
def test_decoded_images_give_the_batches_of_images_read_one_by_one(augment):
    fast = replace(IMAGES, augment=augment)
    slow = replace(fast, cache="off")
    set_seed(3)
    gathered = fast("cpu")
    gathered = [_batches(gathered), _batches(gathered), torch.rand(1), random.random()]
    set_seed(3)
    read = slow("cpu")
    for dl in read.loaders:
        dl.fake_l.num_workers = 0
    read = [_batches(read), _batches(read), torch.rand(1), random.random()]
    assert _identical(gathered[0], read[0])
    assert _identical(gathered[1], read[1])
    assert gathered[2:] == read[2:]


def test_same_seed_gives_the_same_batches_and_another_seed_others():
    def batches(seed):
        set_seed(seed)
        return _batches(IMAGES("cpu"))

    first, again, other = batches(1), batches(1), batches(2)
    assert _identical(first, again)
    assert not torch.equal(first[0][0], other[0][0])


def test_epochs_are_shuffled_differently_and_wholly():
    dl = replace(IMAGES, augment=())("cpu").train.new(drop_last=False)
    own = {sample.image.tobytes() for sample in dl.dataset.items}
    epochs = []
    for _ in range(2):
        x = torch.cat([batch[0] for batch in dl])
        pixels = dl.after_batch.decode((TensorImage(x),))[0].to(torch.uint8)
        epochs.append([image.permute(1, 2, 0).numpy().tobytes() for image in pixels])
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) == set(epochs[1]) == own


def test_restored_generator_gives_the_same_order():
    # What the learning-rate finder does, so that the training after it is not changed.
    dl = IMAGES("cpu").train
    state = dl.rng.getstate()
    dl.randomize()
    first = dl.get_idxs()
    dl.rng.setstate(state)
    dl.randomize()
    assert dl.get_idxs() == first
    assert sorted(first) == list(range(28))
    assert first != sorted(first)


def test_new_gathers_only_while_items_become_batches_in_the_same_way():
    dl = IMAGES("cpu").valid
    assert dl.new(shuffled=False, bs=5).decoded is dl.decoded  # tta passes a misspelt keyword
    assert dl.new(dl.dataset).decoded is dl.decoded
    assert dl.new(dl.dataset.new_empty()).decoded is None
    assert dl.new(after_item=dl.after_item).decoded is None
    assert dl.new(create_item=lambda place: dl.dataset[place]).decoded is None


def test_item_transform_added_later_takes_effect():
    dls = IMAGES("cpu")

    def black(image: Image.Image):
        return type(image)(Image.new("RGB", image.size))

    dls.add_tfms([Transform(black)], "after_item", loaders=[1])
    for dl in (dls.valid, dls.valid.new(shuffle=False)):  # new, as get_preds makes it
        assert dl.decode(dl.one_batch())[0].max() == 0
    assert dls[2].decode(dls[2].one_batch())[0].max() > 0


def test_fastais_own_batch_transforms_get_fractions():
    dls = IMAGES("cpu")
    seen = []

    class Look(Brightness):
        order = 50

        def __call__(self, batch, split_idx=None, **keywords):
            seen.append(batch[0])
            return batch

    plain = [batch[0] for batch in dls.valid]
    dls.add_tfms([Look()], "after_batch", loaders=[1])
    looked = [batch[0] for batch in dls.valid]
    assert seen[0].dtype == torch.float32
    assert 0.5 < seen[0].max() <= 1
    torch.testing.assert_close(looked[0], plain[0])
    assert sum(isinstance(each, IntToFloatTensor) for each in dls.valid.after_batch.fs) == 1
    assert not any(isinstance(each, IntToFloatTensor) for each in dls.train.after_batch.fs)


@shows_images
def test_gray_images_are_of_fastais_gray_type():
    dls = Images(
        source=replace(TOY, channels=1), size=SIZE, channels=1, normalize=None, batch_size=8
    )("cpu")
    x, y = dls.one_batch()
    assert type(x) is TensorImageBW
    assert type(y) is TensorCategory
    assert x.shape == (8, 1, SIZE, SIZE)
    dls.show_batch(max_n=2)
    mpl.pyplot.close("all")


def test_number_of_threads_is_left_as_it_was():
    dl = IMAGES("cpu").train
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert dl._is_light
        during = []
        real = dl._batch
        dl._batch = lambda places: (during.append(torch.get_num_threads()), real(places))[1]
        for _ in dl:
            assert torch.get_num_threads() == 2
        assert set(during) == {1}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("augment", [(ColorJitter(brightness=0.1),), (Rotation(degrees=3),)])
def test_augmentations_that_compute_use_all_threads(augment):
    assert not replace(IMAGES, augment=augment)("cpu").train._is_light


def test_crop_below_the_nets_size_is_an_error():
    dls = replace(IMAGES, augment=(RandomResizedCrop(size=SIZE - 1),))("cpu")
    with pytest.raises(ValueError, match="augmented images must have at least size=12"):
        dls.one_batch()


def test_bad_image_read_one_by_one_is_named(tmp_path):
    for number in range(6):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIZE, SIZE)).save(path)
    images = replace(
        IMAGES, source=ImageFolders(path=tmp_path, valid=1), holdout=0, batch_size=2, cache="off"
    )
    dls = images("cpu")
    dls.train.fake_l.num_workers = 0
    bad = dls.train_ds.items[0].image
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{bad.name}' cannot be read"):
        list(dls.train)


def test_image_too_narrow_to_be_read_one_by_one_is_named(learn, monkeypatch, tmp_path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (90, 1)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(ValueError, match=r"strip\.png' must have at most 6,000 pixels"):
        learn.predict(path)


def test_tensor_of_another_order_is_refused(learn):
    with pytest.raises(ValueError, match=r"a tensor must be \(C, H, W\) .*, got \(40, 40, 3\)"):
        learn.predict(torch.zeros(40, 40, 3, dtype=torch.uint8))


def test_labeled_test_loader_takes_paths_and_samples(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            image = Image.new("RGB", (8, 8), (number * 60, 0, 0))
            image.save(tmp_path / name / f"{number}.png")
    source = ImageFolders(path=tmp_path, valid=1)
    dls = Images(source=source, size=8, batch_size=2)("cpu")
    files = sorted(tmp_path.glob("dog/*.png"))
    for items in (files, [Sample(file, "dog") for file in files]):
        labels = torch.cat([y for _, y in dls.test_dl(items, with_labels=True)])
        assert labels.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("part", ["train", "valid"])
def test_order_as_a_tensor_is_that_of_the_list(part, balance):
    loader = getattr(replace(IMAGES, balance=balance)(), part)
    orders = []
    for order in (loader.get_idxs, loader._order):
        loader.rng = random.Random(3)
        orders.append(torch.as_tensor(order()).tolist())
        orders.append(loader.rng.random())
    assert orders[:2] == orders[2:]


def test_order_of_others_is_taken_as_it_comes():
    loader = IMAGES().train
    given = loader.new(get_idxs=lambda: [2, 1, 0], drop_last=False)
    assert [places.tolist() for places in given.places()] == [[2, 1, 0]]
    backwards = loader.new(shuffle_fn=lambda places: places[::-1], drop_last=False)
    assert next(backwards.places()).tolist() == list(range(27, 11, -1))


BOUNDED = replace(IMAGES, epoch_images=20, batch_size=8, augment=())  # of 28


@pytest.mark.parametrize("cache", ["auto", "off"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_bounded_epoch_is_the_beginning_of_the_whole_ones_order(cache, drop_last):
    bounded = replace(BOUNDED, cache=cache, drop_last=drop_last)("cpu").train
    whole = replace(BOUNDED, epoch_images=None, drop_last=False)("cpu").train
    pixels = []
    for loader in (bounded, whole):
        loader.rng.seed(5)
        pixels.append([[x for batch, _ in loader for x in batch] for _ in range(2)])
    for ours, theirs in zip(*pixels, strict=True):
        assert len(ours) == (16 if drop_last else 20)
        assert len(theirs) == 28
        assert all(map(torch.equal, ours, theirs))
    assert len(bounded) == (2 if drop_last else 3)
    first, second = ({x.numpy().tobytes() for x in epoch} for epoch in pixels[0])
    assert len(first) == len(pixels[0][0])  # no image twice
    assert first != second


def test_bounded_epoch_bounds_only_what_is_shuffled():
    dls = BOUNDED("cpu")
    assert len(dls.train.new(bs=5)) == 4
    assert [len(each) for each in (dls.train.new(shuffle=False, drop_last=False), dls.valid)] == [
        *(4, 2)
    ]
    assert len(replace(BOUNDED, epoch_images=1000)("cpu").train) == 3
    with pytest.raises(ValueError, match="epoch_images must be at least batch_size, got 7 and 8"):
        replace(BOUNDED, epoch_images=7)("cpu")


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_coming_images_are_those_of_the_next_epochs(balance):
    loader = replace(BOUNDED, balance=balance, drop_last=False)("cpu").train
    coming = [loader.coming(epochs) for epochs in (1, 2)]
    shown = [torch.cat(list(loader.places())) for _ in range(2)]
    assert torch.equal(coming[0], shown[0].unique())
    assert torch.equal(coming[1], torch.cat(shown).unique())
    assert torch.equal(loader.new(shuffle=False).coming(1), torch.arange(28))

import gc
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from fastcv.augment import HorizontalFlip, RandomCrop, RandomResizedCrop
from fastcv.data import CIFAR10_STATS, MNIST_STATS, ImageFolders, Toy, digits
from fastcv.data.images import Images

TOY = Toy(classes=3, size=10, train=8, test=4)
IMAGES = Images(source=TOY, size=10, batch_size=6)


def train_only(path=None):
    return TOY()._replace(test=[])


def with_validation(path=None):
    return Toy(classes=3, size=10, train=8, valid=2, test=4)()


def _labels(dl):
    return [sample.label for sample in dl.dataset.items]


def _pixels(dl):
    return [sample.image.tobytes() for sample in dl.dataset.items]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / "photographs"
    for number in range(12):
        path = root / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (30 + number, 47 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def test_dataloaders_say_what_a_net_must_know():
    dls = IMAGES("cpu")
    assert dls.image_shape == (3, 10, 10)
    assert list(dls.vocab) == ["toy0", "toy1", "toy2"]
    assert dls.c == 3
    assert dls.skipped == 0
    assert dls.device == torch.device("cpu")
    assert dls.one_batch()[0].shape == (6, 3, 10, 10)


def test_test_images_validate_where_there_are_no_others():
    dls = IMAGES("cpu")
    assert dls.valid_is_test
    assert [len(dl.dataset) for dl in dls.loaders] == [24, 12]


@pytest.mark.parametrize("cache", ["cpu", "off"])
def test_nothing_validates_where_the_test_images_must_not(cache):
    dls = replace(IMAGES, test_validates=False, cache=cache)("cpu")
    assert not dls.valid_is_test
    assert [len(dl.dataset) for dl in dls.loaders] == [24, 0, 12]
    _, valid, test = dls.loaders
    test.fake_l.num_workers = 0
    assert list(valid) == []
    tested = replace(IMAGES, cache="cpu")("cpu").valid
    for (x, y), (x_tested, y_tested) in zip(test, tested, strict=True):
        assert torch.equal(x, x_tested)
        assert torch.equal(y, y_tested)


@pytest.mark.parametrize("settings", [{"source": with_validation}, {"holdout": 2}])
def test_validation_images_validate_whether_test_images_might_or_not(settings):
    dls = replace(IMAGES, test_validates=False, **settings)("cpu")
    assert not dls.valid_is_test
    assert [len(dl.dataset) for dl in dls.loaders] == [24 - 3 * settings.get("holdout", 0), 6, 12]


def test_own_validation_part_counts_before_the_test_part():
    dls = replace(IMAGES, source=with_validation)("cpu")
    assert not dls.valid_is_test
    assert [len(dl.dataset) for dl in dls.loaders] == [24, 6, 12]


@pytest.mark.parametrize(("holdout", "each"), [(2, 2), (0.25, 2), (1, 1)])
def test_holdout_takes_images_of_each_class_from_training(holdout, each):
    dls = replace(IMAGES, holdout=holdout)("cpu")
    assert not dls.valid_is_test
    assert len(dls.loaders) == 3
    for label in dls.vocab:
        assert _labels(dls.valid).count(label) == each
        assert _labels(dls.train).count(label) == 8 - each
    every = [sample.image.tobytes() for sample in TOY().train]
    assert sorted(_pixels(dls.train) + _pixels(dls.valid)) == sorted(every)
    again = replace(IMAGES, holdout=holdout)("cpu")
    other = replace(IMAGES, holdout=holdout, split_seed=1)("cpu")
    assert _pixels(dls.valid) == _pixels(again.valid)
    assert _pixels(dls.valid) != _pixels(other.valid)


def test_training_part_alone_is_split():
    dls = replace(IMAGES, source=train_only, holdout=2)("cpu")
    assert [len(dl.dataset) for dl in dls.loaders] == [18, 6]
    assert not dls.valid_is_test


def test_train_per_class_keeps_some_of_each_class_beside_what_is_held_out():
    dls = replace(IMAGES, holdout=2, train_per_class=3)("cpu")
    assert [len(dl.dataset) for dl in dls.loaders] == [9, 6, 12]
    assert all(_labels(dls.train).count(label) == 3 for label in dls.vocab)
    assert not set(_pixels(dls.train)) & set(_pixels(dls.valid))
    everything = replace(IMAGES, train_per_class=8)("cpu")
    assert len(everything.train.dataset) == 24


@pytest.mark.parametrize("holdout", [0, 2])
def test_test_per_class_keeps_some_of_each_class_of_the_test_part(holdout):
    data = replace(IMAGES, holdout=holdout, train_per_class=5, test_per_class=3)
    *_, whole = replace(data, test_per_class=None)("cpu").loaders
    train, *valid, test = data("cpu").loaders
    assert [len(dl.dataset) for dl in (train, *valid, test)] == [15, *[6] * bool(holdout), 9]
    assert Counter(_labels(test)) == dict.fromkeys(IMAGES.source().classes, 3)
    assert set(_pixels(test)) < set(_pixels(whole))
    assert _pixels(test) == _pixels(data("cpu").loaders[-1])
    assert _pixels(test) != _pixels(replace(data, split_seed=1)("cpu").loaders[-1])


def test_batches_hold_the_images_and_labels_of_their_own_loader():
    dls = replace(IMAGES, holdout=2, augment=(), normalize=None)("cpu")
    for dl in dls.loaders:
        own = {(s.image.tobytes(), dls.vocab.o2i[s.label]) for s in dl.dataset.items}
        seen = set()
        for x, y in dl.new(shuffle=False, drop_last=False):
            pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            seen |= {(a.tobytes(), b) for a, b in zip(pixels, y.tolist(), strict=True)}
        assert seen == own


def test_training_set_smaller_than_a_batch_is_one_batch():
    dls = replace(IMAGES, batch_size=100)("cpu")
    assert len(dls.train) == 1
    assert len(dls.train.one_batch()[0]) == 24
    assert len(replace(IMAGES, batch_size=7)("cpu").train) == 3  # 24 // 7: fastai's drop_last
    whole = replace(IMAGES, batch_size=7, drop_last=False)("cpu").train
    assert [len(x) for x, _ in whole] == [7, 7, 7, 3]


def test_valid_batch_size_counts_for_validation_and_test():
    dls = replace(IMAGES, holdout=2, valid_batch_size=4)("cpu")
    assert [dl.bs for dl in dls.loaders] == [6, 4, 4]


def test_images_of_many_sizes_equal_torchvisions_resize_and_crops(folder):
    images = Images(
        source=ImageFolders(path=folder, valid=2),
        size=16,
        resize=20,
        batch_size=4,
        augment=(),
        normalize=CIFAR10_STATS,
    )
    oracle = transforms.Compose(
        [
            transforms.Resize(20),
            transforms.CenterCrop(20),
            transforms.CenterCrop(16),
            transforms.ToTensor(),
            transforms.Normalize(CIFAR10_STATS.mean, CIFAR10_STATS.std),
        ]
    )
    for cache in ("cpu", "off"):
        dls = replace(images, cache=cache)("cpu")
        for dl in dls.loaders:
            dl.fake_l.num_workers = 0
            x = torch.cat([x for x, _ in dl.new(shuffle=False, drop_last=False)])
            expected = [oracle(Image.open(s.image)) for s in dl.dataset.items]
            torch.testing.assert_close(x.as_subclass(torch.Tensor), torch.stack(expected))


def test_digits_are_as_scikit_learn_gives_them():
    images = Images(
        source=digits, size=8, channels=1, holdout=0.2, augment=(), normalize=None, batch_size=64
    )
    dls = images("cpu")
    assert [len(dl.dataset) for dl in dls.loaders] == [1438, 359]
    from sklearn.datasets import load_digits

    known = {image.tobytes() for image in load_digits().images.astype(np.uint8)}
    x, _ = dls.valid.one_batch()
    levels = (x.squeeze(1) * 16).round().to(torch.uint8).numpy()
    assert all(image.tobytes() in known for image in levels)


def test_bad_image_is_named_or_left_out_and_counted(folder):
    (folder / "class1" / "03.png").write_bytes(b"no image")
    images = Images(
        source=ImageFolders(path=folder, valid=1), size=8, batch_size=4, augment=(), normalize=None
    )
    for cache in ("cpu", "off"):
        skipping = replace(images, skip_bad=True, cache=cache)("cpu")
        assert skipping.skipped == 1
        assert sum(len(dl.dataset) for dl in skipping.loaders) == 11
        for dl in skipping.loaders:
            dl.fake_l.num_workers = 0
            for x, y in dl.new(shuffle=False, drop_last=False):
                assert (x.flatten(1).max(1).values > 0).all()  # bad ones are black in the cache
                assert len(x) == len(y)
    with pytest.raises(ValueError, match=r"03\.png' cannot be read"):
        images("cpu")


def test_only_images_of_the_parts_are_decoded(folder):
    images = Images(source=ImageFolders(path=folder, valid=1), size=8, batch_size=2)
    few = replace(images, train_per_class=1)
    used = {sample.image for part in few.listing().values() for _, sample in part}
    bad = min(set(folder.glob("class1/*.png")) - used)
    bad.write_bytes(b"no image")
    dls = few("cpu")
    assert {folder / name for name in chain(*dls.names)} == used
    assert len(dls.train.decoded.images) == len(used) == 4
    read = replace(few, cache="off")("cpu")
    for fast, slow in zip(dls.loaders, read.loaders, strict=True):
        slow.fake_l.num_workers = 0
        fast, slow = (list(dl.new(shuffle=False, drop_last=False)) for dl in (fast, slow))
        for (x, y), (x_read, y_read) in zip(fast, slow, strict=True):
            assert torch.equal(x, x_read)
            assert torch.equal(y, y_read)
    with pytest.raises(ValueError, match=rf"{bad.name}' cannot be read"):
        images("cpu")
    # Which images are chosen depends on those that are skipped.
    skipping = replace(few, skip_bad=True)("cpu")
    assert (skipping.skipped, len(skipping.train.decoded.images)) == (1, 12)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_images_are_read_at_each_use_where_nothing_can_keep_them(folder, monkeypatch, skip_bad):
    if skip_bad:
        (folder / "class1" / "03.png").write_bytes(b"no image")
    images = Images(
        source=ImageFolders(path=folder, valid=1), size=8, batch_size=4, skip_bad=skip_bad
    )
    cached = images("cpu")
    monkeypatch.setattr("fastcv.data.images.cached", lambda *_, **__: None)
    dls = images("cpu")
    assert dls.train.decoded is None
    assert (dls.names, dls.skipped) == (cached.names, cached.skipped)
    for read, fast in zip(dls.loaders, cached.loaders, strict=True):
        read.fake_l.num_workers = 0
        read, fast = (list(dl.new(shuffle=False, drop_last=False)) for dl in (read, fast))
        for (x, y), (x_fast, y_fast) in zip(read, fast, strict=True):
            assert torch.equal(x, x_fast)
            assert torch.equal(y, y_fast)


@pytest.mark.parametrize("source", [train_only, with_validation, TOY])
def test_folds_cut_all_images_but_the_test_ones(source):
    data = replace(IMAGES, source=source, holdout=0 if source == with_validation else 2)
    samples = source()
    every = sorted(sample.image.tobytes() for sample in [*samples.train, *samples.valid])
    validated = []
    for fold in range(1, 4):
        dls = replace(data, fold=(fold, 3))("cpu")
        assert not dls.valid_is_test
        assert [len(dl.dataset) for dl in dls.loaders[2:]] == [12] * bool(samples.test)
        assert sorted(_pixels(dls.train) + _pixels(dls.valid)) == every
        counts = Counter(_labels(dls.valid)).values()
        assert max(counts) - min(counts) <= 1
        validated += _pixels(dls.valid)
    assert sorted(validated) == every


def test_left_out_image_does_not_shift_the_others(folder):
    images = Images(
        source=ImageFolders(path=folder, valid=1), size=8, batch_size=4, augment=(), normalize=None
    )
    (folder / "class0" / "00.png").write_bytes(b"")
    dls = replace(images, skip_bad=True)("cpu")
    read = replace(images, skip_bad=True, cache="off")("cpu")
    for fast, slow in zip(dls.loaders, read.loaders, strict=True):
        slow.fake_l.num_workers = 0
        fast, slow = (list(dl.new(shuffle=False, drop_last=False)) for dl in (fast, slow))
        for (x, y), (x_read, y_read) in zip(fast, slow, strict=True):
            assert torch.equal(x, x_read)
            assert torch.equal(y, y_read)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"channels": 4}, r"channels must be 3 \(RGB\) or 1 \(gray\), got 4"),
        ({"resize": 8}, "resize must be at least size, got 8 and 10"),
        ({"normalize": MNIST_STATS}, "a mean and a std for each of 3 channels, got 1 of each"),
        ({"cache": "gpu"}, "cache must be one of auto, cpu, cuda, off, got 'gpu'"),
        ({"cache": "cuda"}, "cache='cuda' needs a CUDA device, got cpu"),
        ({"holdout": 8}, "hold fewer out"),
        ({"holdout": 1.5}, "holdout must be"),
        (
            {"source": with_validation, "holdout": 1},
            r"holdout must be 0 .* ImageFolders\(valid=0\)",
        ),
        ({"source": train_only}, "hold some out"),
        ({"source": train_only, "test_validates": False}, "hold some out"),
        (
            {"train_per_class": 9},
            "each class must have the 9 images .* 'toy0' has 8",
        ),
        (
            {"test_per_class": 5},
            "each class must have the 5 images .* 'toy0' has 4",
        ),
        ({"test_per_class": 0}, "test_per_class must be at least 1, got 0"),
        ({"fold": (0, 5)}, r"fold must be \(k, K\), .* got \(0, 5\)"),
        ({"fold": (6, 5)}, r"fold must be \(k, K\)"),
        ({"fold": (1, 1)}, r"fold must be \(k, K\)"),
        ({"fold": 5}, r"fold must be \(k, K\)"),
        ({"fold": (1, 25)}, "25 folds share 24"),
        ({"decode_size": 9}, "decode_size must be at least resize, got 9 and 10"),
        ({"holdout": 7, "source": Toy(classes=1, size=10, train=8)}, "at least 2 images, got 1"),
    ],
)
def test_wrong_settings_are_said_in_a_sentence(settings, said):
    with pytest.raises(ValueError, match=said) as error:
        replace(IMAGES, **settings)("cpu")
    assert "\n" not in str(error.value)


def test_smoke_is_small_and_quick():
    big = Images(
        source=ImageFolders(path="nowhere"),
        size=224,
        resize=256,
        batch_size=128,
        valid_batch_size=64,
        augment=(
            RandomResizedCrop(size=224),
            RandomCrop(padding=4, size=(224, 224)),
            HorizontalFlip(),
        ),
        holdout=50,
        train_per_class=100,
        test_per_class=2,
        path="nowhere",
        cache="cuda",
    )
    smoke = big.smoke()
    assert (smoke.size, smoke.resize, smoke.path) == (32, 37, None)
    dls = smoke("cpu")
    assert dls.c == 10
    assert dls.image_shape == (3, 32, 32)
    assert dls.one_batch()[0].shape == (8, 3, 32, 32)
    assert [len(dl.dataset) for dl in dls.loaders] == [40, 20, 20]
    assert IMAGES.smoke().size == 10
    folded = replace(big, holdout=0, fold=(9, 10), decode_size=512, cache="auto").smoke()
    assert (folded.fold, folded.decode_size) == ((1, 2), None)
    assert [len(dl.dataset) for dl in folded("cpu").loaders] == [40, 40, 20]


def test_collector_runs_again_after_building():
    assert gc.isenabled()
    IMAGES("cpu")
    assert gc.isenabled()
    with pytest.raises(ValueError, match="resize"):
        replace(IMAGES, resize=1)("cpu")
    assert gc.isenabled()


def test_value_prints_and_compares():
    assert replace(IMAGES) == IMAGES
    assert replace(IMAGES, size=9) != IMAGES
    assert "Toy(classes=3" in repr(IMAGES)
    assert hash(IMAGES) == hash(replace(IMAGES))


def test_source_is_given_the_path():
    given = []

    def source(path=None):
        given.append(str(path))
        return TOY()

    replace(IMAGES, source=source, path="somewhere")("cpu")
    assert given == ["somewhere"]


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["auto", "cuda", "cpu"])
def test_batches_on_the_gpu_equal_those_of_the_cpu(cache):
    data = replace(IMAGES, valid_batch_size=5, augment=())
    on_gpu, on_cpu = replace(data, cache=cache)("cuda"), replace(data, cache="cpu")("cpu")
    kept = on_gpu.train.decoded.images.device.type
    assert kept == ("cpu" if cache == "cpu" else "cuda")
    for (x, y), (x_cpu, y_cpu) in zip(on_gpu.valid, on_cpu.valid, strict=True):
        assert x.device.type == y.device.type == "cuda"
        torch.testing.assert_close(x.cpu(), x_cpu)
        assert torch.equal(y.cpu(), y_cpu)


def test_validation_batches_are_larger_on_a_gpu_that_gathers_them():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    sizes = {
        size: replace(IMAGES, batch_size=size)._valid_batch_size(gpu)
        for size in (16, 128, 1024, 4096)
    }
    assert sizes == {16: 128, 128: 1024, 1024: 2048, 4096: 4096}
    assert replace(IMAGES, valid_batch_size=5)._valid_batch_size(gpu) == 5
    assert IMAGES._valid_batch_size(cpu) == IMAGES.batch_size
    assert replace(IMAGES, cache="off")._valid_batch_size(gpu) == IMAGES.batch_size


@pytest.mark.gpu
def test_images_that_do_not_fit_on_the_gpu_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    assert IMAGES("cuda").train.decoded.images.device.type == "cpu"
    with pytest.raises(ValueError, match=r"cache='cuda' needs .* GB are free"):
        replace(IMAGES, cache="cuda")("cuda")

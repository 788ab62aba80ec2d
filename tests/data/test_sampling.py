"""Balanced sampling of training batches, and sources cut to a long tail."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from fastcv.data import Images, LongTail, Toy, digits
from fastcv.data.sampling import BalancedSampler, quotas
from fastcv.data.sources.birds import birds

COUNTS = torch.tensor([2, 4, 8, 16])
LABELS = torch.repeat_interleave(torch.arange(4), COUNTS)[torch.randperm(30)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_quotas_are_the_power_of_the_counts_on_average(balance):
    shares = COUNTS.double() ** (1 - balance)
    wanted = 30 * shares / shares.sum()
    drawn = torch.stack([quotas(COUNTS, balance, seeded(seed)) for seed in range(4000)])
    assert (drawn.sum(1) == 30).all()
    assert ((drawn - wanted).abs() < 1).all()
    assert drawn.double().mean(0).numpy() == pytest.approx(wanted.numpy(), abs=0.05)


def test_an_epoch_shows_the_images_of_a_class_equally_often():
    sampler = BalancedSampler(LABELS, 1.0)
    epochs = [sampler(seeded(seed)) for seed in range(3)]
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], sampler(seeded(0)))
    for epoch in epochs:
        assert len(epoch) == 30
        times = torch.bincount(epoch, minlength=30)
        of_classes = [times[label == LABELS] for label in range(4)]
        assert all(each.max() - each.min() <= 1 for each in of_classes)
        assert all(7 <= each.sum() <= 8 for each in of_classes)
    assert len(torch.cat(epochs)[torch.cat([LABELS[each] for each in epochs]) == 3].unique()) > 8


def test_without_balance_each_image_comes_once():
    assert sorted(BalancedSampler(LABELS, 0.0)(seeded(0)).tolist()) == list(range(30))


TAIL = Images(
    source=LongTail(source=Toy(classes=4, size=8, train=16, test=3), ratio=8),
    size=8,
    batch_size=6,
    balance=1.0,
)


def labels(loader):
    return torch.cat([y for _, y in loader]).tolist()


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_training_batches_are_balanced_and_others_are_not(cache):
    dls = replace(TAIL, cache=cache)(device="cpu")
    assert len(dls.train) == len(replace(TAIL, balance=0)(device="cpu").train) == 5
    assert sorted(Counter(labels(dls.train)).values()) == [7, 7, 8, 8]
    assert sorted(Counter(labels(dls.train.new(bs=5))).values()) == [7, 7, 8, 8]
    assert sorted(Counter(labels(dls.train.new(shuffle=False))).values()) == [2, 4, 8, 16]
    assert set(Counter(labels(dls.valid)).values()) == {3}
    state = dls.train.rng.getstate()
    first, second = labels(dls.train), labels(dls.train)
    dls.train.rng.setstate(state)
    assert labels(dls.train) == first != second


def test_the_order_does_not_depend_on_the_cache():
    orders = []
    for cache in ("auto", "off"):
        dls = replace(TAIL, cache=cache)(device="cpu")
        dls.train.rng.seed(3)
        orders.append(labels(dls.train))
    assert orders[0] == orders[1]


def test_a_bounded_epoch_is_balanced():
    dls = replace(TAIL, epoch_images=12)(device="cpu")
    assert len(dls.train) == 2
    assert sorted(Counter(labels(dls.train)).values()) == [3, 3, 3, 3]
    natural = quotas(COUNTS, 0.0, seeded(0), 15)
    assert natural.tolist() == [1, 2, 4, 8]


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_balance_is_a_fraction(balance):
    with pytest.raises(ValueError, match=f"balance must be a fraction from 0 to 1, got {balance}"):
        replace(TAIL, balance=balance)(device="cpu")


def test_long_tail_keeps_an_exponential_number_of_each_class():
    whole = Toy(classes=5, size=8, train=16, valid=2, test=3)
    cut, mild = LongTail(source=whole, ratio=16)(), LongTail(source=whole, ratio=4)()
    counts = Counter(sample.label for sample in cut.train)
    assert sorted(counts.values()) == [1, 2, 4, 8, 16]
    assert counts == Counter(sample.label for sample in LongTail(source=whole, ratio=16)().train)
    other = LongTail(source=whole, ratio=16, seed=1)()
    assert counts != Counter(sample.label for sample in other.train)
    assert (len(cut.valid), len(cut.test), cut.classes) == (10, 15, whole().classes)
    kept, milder = ({sample.image.tobytes() for sample in each.train} for each in (cut, mild))
    assert kept < milder
    order = [sample.image.tobytes() for sample in whole().train]
    places = [order.index(sample.image.tobytes()) for sample in cut.train]
    assert places == sorted(places)
    assert len(LongTail(source=whole, ratio=1)().train) == 80


def test_long_tail_starts_from_the_smallest_class():
    counts = Counter(sample.label for sample in LongTail(source=digits, ratio=10)().train)
    smallest = min(Counter(sample.label for sample in digits().train).values())
    assert max(counts.values()) == smallest
    assert min(counts.values()) == round(smallest / 10)
    with pytest.raises(ValueError, match=r"ratio must be at least 1, got 0\.5"):
        LongTail(source=birds, ratio=0.5)

"""What an augmentation of one's own gets for each of its declarations; see `Augmentation`."""

from dataclasses import dataclass, replace

import pytest
import torch

from fastcv.augment import HorizontalFlip, Resampling, Rotation, compose
from fastcv.augment.alternating import at_epoch
from fastcv.data import Images, Toy


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Declares nothing; remembers the batches that it gets."""

    def __call__(self, x):
        seen.append(x)
        return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x


@dataclass(frozen=True, kw_only=True)
class Mover(Plain):
    moves_pixels = True

    def __call__(self, x):
        seen.append(x)
        return x.flip(-1)


@dataclass(frozen=True, kw_only=True)
class Relabeler:
    changes_labels = True

    def __call__(self, x, y, classes):
        seen.append(x)
        return x, torch.nn.functional.one_hot(y, classes).float()


@dataclass(frozen=True, kw_only=True)
class Shift:
    pixels: float = 0.5

    def __call__(self, x):
        raise AssertionError("merged")

    def matrix(self, x):
        matrix = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
        matrix[:, 0, 2] = self.pixels
        return matrix


@dataclass(frozen=True, kw_only=True)
class Sized(Plain):
    size: int | tuple[int, int] = 64


@dataclass(frozen=True, kw_only=True)
class Counted(Plain):
    epoch: int = 0

    def at_epoch(self, epoch):
        return replace(self, epoch=epoch)


seen = []


@pytest.fixture(autouse=True)
def _nothing_seen():
    seen.clear()


def loaders(*augment):
    return Images(source=Toy(classes=2), size=32, batch_size=8, augment=augment)("cpu")


def test_bytes_stay_bytes_while_all_before_move_pixels():
    loaders(Mover(), Plain(), Plain()).one_batch()
    assert [x.dtype for x in seen] == [torch.uint8, torch.uint8, torch.float32]
    assert all(type(x) is torch.Tensor for x in seen)


def test_small_batches_are_made_by_one_thread_if_all_move_pixels():
    assert loaders(Mover(), HorizontalFlip()).train._is_light
    assert not loaders(Mover(), Plain()).train._is_light


def test_what_changes_labels_is_left_to_the_learner():
    dls = loaders(Mover(), Relabeler())
    _, y = dls.one_batch()
    assert y.shape == (8,)
    assert len(seen) == 1
    assert dls.mixing == (Relabeler(),)


def test_matrix_merges_with_neighbors_and_reads_bilinearly_by_default():
    (step,) = compose([HorizontalFlip(), Shift(), Rotation(degrees=0)]).values
    assert isinstance(step, Resampling)
    assert step.interpolation == "bilinear"
    x = torch.zeros(1, 1, 1, 4)
    x[..., 2] = 1.0
    halfway = compose([Shift(), Shift(pixels=0.0)])(x)
    torch.testing.assert_close(halfway, torch.tensor([[[[0.0, 0.5, 0.5, 0.0]]]]))
    nearest = compose([Shift(), Rotation(degrees=0, interpolation="nearest"), Shift()]).values
    assert len(nearest) == 3


def test_value_that_is_not_mergeable_stays_out():
    class Apart(Shift):
        mergeable = False

    assert len(compose([HorizontalFlip(), Apart(), Rotation(degrees=0)]).values) == 3


def test_at_epoch_reaches_the_parts_of_a_composition():
    both = at_epoch(compose([Plain(), Counted()]), 3)
    assert both.values == (Plain(), Counted(epoch=3))


def test_smoke_lowers_the_size():
    data = Images(source=Toy(), size=64, batch_size=8, augment=(Sized(), Sized(size=(64, 16))))
    assert data.smoke().augment == (Sized(size=32), Sized(size=(32, 16)))

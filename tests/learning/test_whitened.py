"""The parts of the speedrun recipe together, on toy images."""

from dataclasses import replace

import pytest
import torch

from fastcv.augment.alternating import AlternatingFlip
from fastcv.experiment.building import learner, smoked
from fastcv.experiment.train import train
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.models import FromScratch
from fastcv.learning.tta import TTA
from fastcv.learning.whitened import Whitened, first_images
from fastcv.nets import BaseNet
from fastcv.recipes.speedrun_cifar10 import recipe as speedrun
from fastcv.recipes.speedrun_cifar10 import variants


def short(epochs=2, **changes):
    """The recipe with a small net on toy images, for so many epochs."""
    recipe = smoked(replace(speedrun, precision="fp32"))
    recipe = replace(recipe, model=replace(recipe.model, settings={"widths": (8, 16, 16)}))
    stage = replace(speedrun.schedule[0], epochs=epochs, **changes)
    return replace(recipe, schedule=(stage,))


def test_first_layer_is_whitened_by_the_first_images_without_augmentation():
    recipe = short()
    learn = learner(recipe, device="cpu")
    images = first_images(learn.dls, 5000)
    plain = recipe.data(device="cpu")
    plain.train.dataset.set_split_idx(1)
    expected = torch.stack([plain.train.dataset[i][1] + 0 for i in range(3)])
    assert len(images) == len(learn.dls.train.dataset) == len(plain.train.dataset)
    labels = torch.stack([learn.dls.train.dataset[i][1] + 0 for i in range(3)])
    assert torch.equal(labels, expected)
    reference = recipe.model.net(classes=2, size=images.shape[-1])
    reference.whiten(images)
    assert torch.equal(learn.model.whitening.filters, reference.whitening.filters)
    pixels = learn.dls.train.decoded.batch(torch.arange(3))[0].float() / 255
    mean, std = (
        torch.tensor(each).view(3, 1, 1)
        for each in (recipe.data.normalize.mean, recipe.data.normalize.std)
    )
    torch.testing.assert_close(images[:3], (pixels - mean) / std, atol=1e-5, rtol=0)


def test_whitening_draws_nothing():
    recipe = short()
    plain = replace(recipe, model=FromScratch(net=recipe.model.net, settings=recipe.model.settings))
    states = []
    for each in (recipe, plain):
        learn = learner(each, device="cpu")
        states.append((torch.get_rng_state().tolist(), learn.dls.train.rng.getstate()))
        weights = learn.model.stages.state_dict()
        states[-1] += ({name: value.tolist() for name, value in weights.items()},)
    assert states[0] == states[1]


def test_a_net_that_cannot_be_whitened_is_refused():
    recipe = replace(short(), model=Whitened(net=BaseNet))
    with pytest.raises(ValueError, match=r"method whiten\(images\), BaseNet has none"):
        learner(recipe, device="cpu")


def test_every_image_is_seen_in_both_orientations_in_two_epochs():
    recipe = short()
    recipe = replace(recipe, data=replace(recipe.data, augment=(AlternatingFlip(),), batch_size=8))
    learn = learner(recipe, device="cpu")
    images = first_images(learn.dls, 5000)
    mirrored = images.flip(-1)
    seen = torch.zeros(2, len(images), dtype=torch.int64)

    def look(xb):
        for x in xb[0].as_subclass(torch.Tensor):
            for row, way in enumerate((images, mirrored)):
                seen[row] += (way - x).abs().amax((1, 2, 3)) < 1e-5

    learn.model.register_forward_pre_hook(lambda net, xb: look(xb) if net.training else None)
    recipe.schedule[0](learn)
    assert len(images) % 8 == 0  # no image is left out with the last batch
    assert torch.equal(seen, torch.ones_like(seen))


def test_accuracy_through_views_is_measured_after_the_last_epoch():
    learn = learner(short(callbacks=(TTA(),)), device="cpu")
    rows = []
    learn.history.on_epoch = lambda row, steps: rows.append(
        row | getattr(learn.history, "also", {})
    )
    short().schedule[0](learn)
    assert ["tta_accuracy" in row for row in rows] == [False, True]
    net = learn.model.eval()
    right = [
        (TTA().predict(net, x.as_subclass(torch.Tensor)).argmax(1) == y.as_subclass(torch.Tensor))
        for x, y in learn.dls.valid
    ]
    expected = torch.cat(right).float().mean().item()
    assert rows[1]["tta_accuracy"] == pytest.approx(expected)


def test_resumed_speedrun_equals_one_never_stopped(tmp_path, undrawn, monkeypatch):
    recipe = short(epochs=3, callbacks=(FreezeFirst(after=1),))
    whole = train(recipe, out=tmp_path, wandb="off", device="cpu")
    after_epoch = Checkpoint.after_epoch

    def stop_early(self):
        after_epoch(self)
        raise InterruptedError("after an epoch")

    monkeypatch.setattr(Checkpoint, "after_epoch", stop_early)
    with pytest.raises(InterruptedError):
        train(recipe, out=tmp_path, wandb="off", device="cpu")
    monkeypatch.setattr(Checkpoint, "after_epoch", after_epoch)
    (stopped,) = [path.parent for path in tmp_path.rglob("last.ckpt") if path.parent != whole.path]
    resumed = train(recipe, wandb="off", device="cpu", resume=stopped)
    assert len(resumed.metrics) == 3
    assert resumed.steps == whole.steps
    assert resumed.summary["valid_loss"] == whole.summary["valid_loss"]


@pytest.mark.parametrize("recipe", [speedrun, *variants.values()], ids=lambda each: each.name)
def test_first_augmentation_sees_pixels_that_nothing_has_changed(recipe):
    assert isinstance(recipe.data.augment[0], AlternatingFlip)
    assert not any(isinstance(each, AlternatingFlip) for each in recipe.data.augment[1:])

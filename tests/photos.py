"""Photos made of noise, for tests on folders of a user's own."""

import numpy as np
from PIL import Image

from fastcv.recipe import override, replace

SMALL = (
    "data.size=32",
    "data.resize=36",
    "data.augment.0.size=32",
    "data.batch_size=8",
    "schedule.0.epochs=1",
    "schedule.1.epochs=1",
)


def small(recipe):
    """Fit a recipe for photos to a test: small images, a shallow net, two epochs."""
    return override(replace(recipe, model=recipe.model.smoke()), *SMALL)


def make_photos(root, *, splits=("",), classes=("cat", "dog"), count=2, size=(40, 32)):
    """Write `count` images a class, width and height in pixels, into root/SPLIT/CLASS/."""
    random = np.random.default_rng(0)
    for split in splits:
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")

"""scikit-learn's digits: 8 x 8 pixels, gray."""

from pathlib import Path

import numpy as np

from fastcv.data.samples import Sample, Samples, labeled


def digits(path: Path | None = None) -> Samples:
    """Load scikit-learn's 1,797 handwritten digits: 8 x 8 pixels, gray, 10 classes, all training.

    They come with scikit-learn, so nothing is fetched. Their 17 gray levels (0-16) are spread over
    0-255.

    Raises:
        ValueError: `path` is not None.
    """
    if path is not None:
        raise ValueError(
            f"the path of digits must be None, as they come with scikit-learn, got '{path}': leave "
            "it out, or use the source mnist or ImageFolders"
        )
    # Here, because scikit-learn takes a second to import, and other sources do without.
    from sklearn.datasets import load_digits

    levels, targets = load_digits(return_X_y=True)
    images = np.rint(levels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    train = [Sample(image, str(target)) for image, target in zip(images, targets, strict=True)]
    return labeled((train, [], []), root=None)

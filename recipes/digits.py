"""Handwritten digits, 8x8 pixels: the data comes with scikit-learn, the run takes seconds.

Report    none: this is fastcv's own first run; 97 % is what it sets out to pass
Data      1,797 digits of the UCI set; 359 of them, drawn by class, validate

    fastcv recipe digits
"""

from fastcv.data.images import Images
from fastcv.data.sources import digits
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.optimizers import AdamW
from fastcv.learning.schedules import OneCycle
from fastcv.nets import MnistCNN
from fastcv.recipe import Recipe

recipe = Recipe(
    data=Images(source=digits, size=8, channels=1, batch_size=32, holdout=0.2),
    model=FromScratch(net=MnistCNN, settings={"dropout": 0.2}),
    optimizer=AdamW(weight_decay=0.01),
    loss=CrossEntropy(),
    schedule=(OneCycle(epochs=10, lr=3e-3),),
)

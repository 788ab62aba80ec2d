"""Photos made of noise, for tests on folders of a user's own, and one of a phone."""

import base64

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
# A gradient of 36 x 24 pixels, red to the right and green downwards, as a phone held upright writes
# it: to be turned by its container, and by its EXIF data once more. Made with libheif and x265.
HEIC = base64.b64decode("""
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAcdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA
AAAAADRpbG9jAAAAAERAAAIAAQAAAAAB6wABAAAAAAAAAbEAAgAAAAADnAABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVp
bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABBmlwcnAAAADlaXBjbwAAAHVo
dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAA
AwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA
AABAAAAAQAAAAChjbGFwAAAAJAAAAAEAAAAYAAAAAf///+QAAAAC////2AAAAAIAAAAQcGl4aQAAAAADCAgIAAAACWlyb3QD
AAAAGWlwbWEAAAAAAAAAAQABBoECAwWEhgAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAB3W1kYXQAAAGtKAGvBjIIipdd
gIkG2xPFQ8eng3XVkKMfmwK6v+iM38MPU7uzhB/91o88fCYQiLCXP/61ydU/cPNblkBdDQt+M+4loR7OdpRk+nioBp8OFIF2
MKdfYPvplg6I/aN+Fk49wCblOxKOruGttoVrtC6ufSQ/xCgURXxRP93RJOhvgdJGBRxppO4pPuG9jEpobmc1ESQt/0CoBtEG
gzbvm1D3wt37iPuRT7nRHD2u0XJCVdU3mcTrADmndvu022r1zUcDyAXZDTaem7TPAIe/lYPJPMwGk+j2gyS5k49PSY8umXGO
w9znBS1U0bjJXec3g+Lj1oLlntV/IvebA7ZUMlHilT6r1tkrsUJgSZtyZg6Ur5eRbYgDI5crEAu517+P7T/95z7i653mQJWu
y6cY+tMWtRYIg+ZcPDLsaZ1eq9yjjr+WAWnYOHCGLD5fhg7IKZ4vVJaEISba6wYKdCugRV3LjPrOaVHsa0k9vW3i3pkBuIrg
yi7BS0irhaPlPuPn6cy79PymHKf+cid0e3r3tayYEaZbzq8fijmr/4XzKkOZw/ocIBYfBDer59ragDc+AAAABkV4aWYAAE1N
ACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA
""")


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

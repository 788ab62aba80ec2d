"""A sweep: the settings of a recipe searched by many runs, on one machine or on several.

found = sweep("digits", ["schedule.0.lr=1e-4..1e-1:log", "data.batch_size=32,64"], trials=20)
print(found.result, found.command)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

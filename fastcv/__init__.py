"""Image-classification experiments as values, on fastai: run, compare, use, and share them.

    import fastcv

    recipe = fastcv.get_recipe("light_resnet_cifar10/one_cycle")
    run = fastcv.train(recipe)    # trains, and writes its directory: run.path
    print(fastcv.check(run))      # reported | measured | within tolerance
    learn = run.learner()         # a fastai Learner with the trained weights

An experiment is a `Recipe`: its `data` (`fastcv.data`, augmented by `fastcv.augment`), its `model`,
`schedule`, `optimizer` and `loss` (`fastcv.learning`, with the nets of `fastcv.nets`). Everything
here is imported when it is first used, so that `import fastcv` takes no time.
"""

import warnings

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Newer torch and pandas remark on what fastai 2.8 does on import; its user cannot change that.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", message=".*mode.chained_assignment.*")

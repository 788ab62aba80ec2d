"""Image-classification experiments as values, on fastai."""

import warnings

__version__ = "0.1.0"

# Newer torch and pandas remark on what fastai 2.8 does on import; its user cannot change that.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", message=".*mode.chained_assignment.*")

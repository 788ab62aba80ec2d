# Read by lazy_loader: a report reads sweeps without torch.
from .running import sweep as sweep
from .summary import Sweep as Sweep
from .summary import Trial as Trial

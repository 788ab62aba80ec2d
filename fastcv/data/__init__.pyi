# Read by lazy_loader: each name is imported when it is first used.
from .images import Images as Images
from .samples import Sample as Sample
from .samples import Samples as Samples
from .sources import (
    ImageFolders as ImageFolders,
)
from .sources import (
    birds as birds,
)
from .sources import (
    cifar10 as cifar10,
)
from .sources import (
    cifar100 as cifar100,
)
from .sources import (
    digits as digits,
)
from .sources import (
    mnist as mnist,
)
from .statistics import (
    BIRDS_STATS as BIRDS_STATS,
)
from .statistics import (
    CIFAR10_STATS as CIFAR10_STATS,
)
from .statistics import (
    CIFAR100_STATS as CIFAR100_STATS,
)
from .statistics import (
    HALF_STATS as HALF_STATS,
)
from .statistics import (
    IMAGENET_STATS as IMAGENET_STATS,
)
from .statistics import (
    MNIST_STATS as MNIST_STATS,
)
from .toy import Toy as Toy

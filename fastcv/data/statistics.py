"""Mean and standard deviation of the channels of known data sets, pixels as fractions 0-1."""

from fastcv.augment.pixels import Normalize

# Over the pixels of all training images.
CIFAR10_STATS = Normalize(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100_STATS = Normalize(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
MNIST_STATS = Normalize(mean=(0.1307,), std=(0.3081,))
# Those that torchvision's ImageNet weights were trained with.
IMAGENET_STATS = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Of no data set: pixels from 0-1 to -1-1.
HALF_STATS = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# Of square crops around the birds in 3,000 images of 2010, 15 of each class, without the black
# padding; the whole photographs, with more background, may differ a little.
BIRDS_STATS = Normalize(mean=(0.4715, 0.4788, 0.4130), std=(0.2345, 0.2312, 0.2627))

import numpy as np

from fastcv.data import Toy


def _pixels(samples):
    return np.stack([sample.image for sample in samples]).astype(float)


def test_toy_gives_the_asked_number_of_images_of_each_class():
    samples = Toy(classes=12, size=20, train=3, valid=2, test=1)()
    assert [len(part) for part in samples[:3]] == [36, 24, 12]
    assert len(samples.classes) == 12
    assert samples.classes == tuple(sorted(samples.classes))
    for part in samples[:3]:
        assert {sample.label for sample in part} == set(samples.classes)
        assert all(sample.image.shape == (20, 20, 3) for sample in part)
        assert all(sample.image.dtype == np.uint8 for sample in part)


def test_toy_in_gray_has_no_channel_axis():
    assert Toy(channels=1, size=8)().train[0].image.shape == (8, 8)


def test_toy_is_the_same_for_the_same_value_and_differs_by_seed():
    first, again, other = Toy()(), Toy()(), Toy(seed=1)()
    assert np.array_equal(_pixels(first.train), _pixels(again.train))
    assert not np.array_equal(_pixels(first.train), _pixels(other.train))


def test_toy_can_be_learnt_by_the_nearest_class_mean_also_when_flipped():
    samples = Toy()()
    labels = np.array([sample.label for sample in samples.train])
    pixels = _pixels(samples.train)
    means = np.stack([pixels[labels == each].mean(0) for each in samples.classes])
    for test in (_pixels(samples.test), _pixels(samples.test)[:, :, ::-1]):
        distance = ((test[:, None] - means[None]) ** 2).sum((2, 3, 4))
        guessed = [samples.classes[index] for index in distance.argmin(1)]
        assert guessed == [sample.label for sample in samples.test]


def test_toy_noise_is_a_fraction_of_the_full_range():
    samples = Toy(noise=0.05, classes=2, train=400, size=8)()
    pixels = _pixels([sample for sample in samples.train if sample.label == samples.classes[0]])
    inner = (pixels.mean(0) > 60) & (pixels.mean(0) < 195)  # away from 0 and 255, where it is cut
    assert inner.any()
    assert np.allclose(pixels.std(0)[inner], 0.05 * 255, rtol=0.25)

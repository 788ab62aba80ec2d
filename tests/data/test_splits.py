import os
from collections import Counter

import pytest
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from fastcv.data.splits import folds, kept, stratified

LABELS = ["cat"] * 40 + ["dog"] * 20 + ["owl"] * 10
GROUPS = [f"animal{index // 3}" for index in range(70)]


@pytest.mark.parametrize("holdout", [3, 9, 0.2, 0.5, 0.99])
def test_stratified_shares_no_image_and_loses_none(holdout):
    held, rest = stratified(LABELS, holdout, seed=42)
    assert sorted(held + rest) == list(range(70))
    assert held == sorted(held)
    assert rest == sorted(rest)
    assert {LABELS[index] for index in rest} == {"cat", "dog", "owl"}


def test_stratified_counts_equal_scikit_learns():
    oracle = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
    _, expected = next(oracle.split(LABELS, LABELS))
    held, _ = stratified(LABELS, 0.2, seed=0)
    assert Counter(LABELS[i] for i in held) == Counter(LABELS[i] for i in expected)


def test_stratified_integer_holds_out_so_many_of_each_class():
    held, _ = stratified(LABELS, 7, seed=1)
    assert Counter(LABELS[i] for i in held) == {"cat": 7, "dog": 7, "owl": 7}


def test_stratified_is_the_same_on_every_machine():
    # Written down once: a change here changes every published held-out split.
    assert stratified(["a", "b"] * 10, 2, seed=42)[0] == [3, 10, 17, 18]


def test_stratified_takes_class_names_of_any_bytes():
    held, rest = stratified([os.fsdecode(b"caf\xe9")] * 4, 1, seed=42)
    assert (len(held), len(rest)) == (1, 3)


def test_stratified_takes_another_set_for_another_seed():
    assert stratified(LABELS, 0.2, seed=1) == stratified(LABELS, 0.2, seed=1)
    assert stratified(LABELS, 0.2, seed=1) != stratified(LABELS, 0.2, seed=2)


def test_stratified_classes_do_not_hold_out_the_same_places():
    held, _ = stratified(["a"] * 50 + ["b"] * 50, 10, seed=42)
    assert {i for i in held if i < 50} != {i - 50 for i in held if i >= 50}


def test_stratified_class_keeps_its_split_without_the_others():
    held, _ = stratified(LABELS, 5, seed=42)
    alone, _ = stratified(["cat"] * 40, 5, seed=42)
    assert [index for index in held if index < 40] == alone


def test_stratified_zero_holds_nothing_out():
    assert stratified(LABELS, 0, seed=42) == ([], list(range(70)))
    assert stratified(LABELS, 0.0, seed=42) == ([], list(range(70)))


def test_stratified_small_classes_give_one_and_keep_one():
    held, rest = stratified(["a", "a", "b", "c", "c", "c"], 0.1, seed=42)
    assert Counter("aabccc"[i] for i in held) == {"a": 1, "c": 1}
    held, rest = stratified(["a", "a", "b", "c", "c", "c"], 0.95, seed=42)
    assert Counter("aabccc"[i] for i in rest) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("holdout", [-1, -0.1, 1.0, 1.5, float("nan")])
def test_stratified_refuses_a_share_out_of_range(holdout):
    with pytest.raises(ValueError, match="holdout must be"):
        stratified(LABELS, holdout, seed=42)


def test_stratified_names_the_class_that_is_too_small():
    with pytest.raises(ValueError, match="class 'owl' has 10"):
        stratified(LABELS, 10, seed=42)


def test_stratified_refuses_when_every_class_has_one_image():
    with pytest.raises(ValueError, match="at least two images"):
        stratified(["a", "b", "c"], 0.2, seed=42)


@pytest.mark.parametrize("per_class", [1, 9, 10])
def test_kept_takes_so_many_of_each_class_and_the_smallest_whole(per_class):
    chosen = kept(LABELS, per_class, seed=3)
    assert chosen == sorted(set(chosen))
    assert Counter(LABELS[i] for i in chosen) == dict.fromkeys(("cat", "dog", "owl"), per_class)
    assert chosen == kept(LABELS, per_class, seed=3)
    assert per_class == 10 or chosen != kept(LABELS, per_class, seed=4)


def test_kept_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="class 'owl' has 10: keep fewer"):
        kept(LABELS, 11, seed=3)


@pytest.mark.parametrize("most", [3, 7, 13, 14, 100])
def test_stratified_bounded_holds_out_proportional_shares_of_the_unbounded(most):
    whole, _ = stratified(LABELS, 0.2, seed=42)  # 8, 4 and 2
    held, rest = stratified(LABELS, 0.2, seed=42, most=most)
    assert sorted(held + rest) == list(range(70))
    assert set(held) <= set(whole)
    assert len(held) == min(most, 14)
    counts = Counter(LABELS[index] for index in held)
    # The oracle: some fraction, rounded half up, gives these counts.
    fractions = (step / 10_000 for step in range(10_000))
    assert any(
        {label: max(1, int(n * each + 0.5)) for label, n in Counter(LABELS).items()} == counts
        for each in fractions
    )


def test_stratified_bounded_keeps_one_of_each_class_and_takes_as_many_of_each_by_number():
    held, _ = stratified(LABELS, 0.2, seed=42, most=1)
    assert Counter(LABELS[index] for index in held) == {"cat": 1, "dog": 1, "owl": 1}
    held, _ = stratified(LABELS, 7, seed=42, most=12)
    assert Counter(LABELS[index] for index in held) == {"cat": 4, "dog": 4, "owl": 4}


def test_stratified_bounded_holds_fewer_groups_out():
    held, rest = stratified(LABELS, 0.2, 42, GROUPS, most=8)
    assert 0 < len(held) <= 8 + 3  # whole groups of 3
    assert not {GROUPS[index] for index in held} & {GROUPS[index] for index in rest}
    assert stratified(LABELS, 0.2, 42, GROUPS, most=1)[0]


# Folds


@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_folds_validate_each_image_once_with_scikit_learns_numbers_of_each_class(count):
    labels = ["cat"] * 41 + ["owl"] * 10 + ["dog"] * 23
    found = folds(labels, count, seed=42)
    assert sorted(index for held in found for index in held) == list(range(74))
    assert all(held == sorted(held) for held in found)
    oracle = [held for _, held in StratifiedKFold(count).split(labels, labels)]
    for label in set(labels):
        ours, theirs = (
            sorted(sum(labels[index] == label for index in held) for held in each)
            for each in (found, oracle)
        )
        assert ours == theirs
        assert ours[-1] - ours[0] <= 1
    assert sorted(map(len, found)) == sorted(map(len, oracle))


def test_folds_are_the_same_on_every_machine():
    # Written down once: a change here changes the folds of every published cross-validation.
    assert folds(["a", "b"] * 4, 3, seed=42) == [[2, 4, 5], [0, 3, 7], [1, 6]]
    assert folds(["a", "b"] * 4, 3, seed=1) != folds(["a", "b"] * 4, 3, seed=42)


@pytest.mark.parametrize("count", [2, 5])
def test_folds_keep_groups_whole_and_classes_balanced(count):
    found = folds(LABELS, count, 42, GROUPS)
    assert sorted(index for held in found for index in held) == list(range(70))
    for group in set(GROUPS):
        assert sum(group in {GROUPS[index] for index in held} for held in found) == 1
    for label in set(LABELS):
        counts = [sum(LABELS[index] == label for index in held) for held in found]
        assert max(counts) - min(counts) <= 3
    assert found == folds(LABELS, count, 42, GROUPS)
    assert found != folds(LABELS, count, 43, GROUPS)


def test_folds_take_images_without_a_group_as_they_are():
    some = [group if index < 30 else None for index, group in enumerate(GROUPS)]
    found = folds(LABELS, 5, 42, some)
    assert sorted(map(len, found)) == [14] * 5
    assert folds(LABELS, 5, 42, [None] * 70) == folds(LABELS, 5, 42)


@pytest.mark.parametrize(
    ("labels", "count", "groups", "said"),
    [
        (["a", "b"] * 2, 5, None, "5 folds share 4"),
        (["a", "a", "b"], 2, None, "all of class 'b' are in one"),
        (["a", "b"] * 4, 3, ["x", "y"] * 4, "2 groups for 3 folds"),
        (["a", "b"] * 4, 2, ["x", "y"] * 4, "all of class 'a' are in one"),
        (["a"] * 3 + ["b"] * 3, 5, ["x", *"uvwyz"], "the largest has 3"),
    ],
)
def test_folds_that_cannot_be_are_refused(labels, count, groups, said):
    with pytest.raises(ValueError, match=said):
        folds(labels, count, 42, groups)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_holds_whole_groups_out(seed):
    held, rest = stratified(LABELS, 0.2, seed, GROUPS)
    assert not {GROUPS[index] for index in held} & {GROUPS[index] for index in rest}
    assert sorted(held + rest) == list(range(70))
    for label, count in Counter(LABELS).items():
        assert abs(sum(LABELS[index] == label for index in held) - 0.2 * count) <= 3
    assert stratified(LABELS, 0.2, seed, [None] * 70) == stratified(LABELS, 0.2, seed)


def test_stratified_groups_differ_by_seed():
    assert len({tuple(stratified(LABELS, 0.2, seed, GROUPS)[0]) for seed in range(9)}) > 3


def test_stratified_keeps_a_class_of_one_group_in_training():
    labels = ["a", "b"] * 10 + ["c"] * 4
    groups = [f"{index // 4}" for index in range(20)] + ["all of c"] * 4
    for seed in range(6):
        held, rest = stratified(labels, 0.3, seed, groups)
        assert {labels[index] for index in rest} == set("abc")
        assert held
    with pytest.raises(ValueError, match="loses them all"):
        stratified(["a", "b"] * 2, 0.5, 0, ["x", "y"] * 2)
    with pytest.raises(ValueError, match=r"a fraction of at most 0\.5, got 3"):
        stratified(labels, 3, 0, groups)

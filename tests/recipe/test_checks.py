from types import SimpleNamespace

from fastcv.recipe import Reported, check, compare


def test_compare_gives_a_row_for_every_reported_number():
    reported = Reported(
        source="000", test_accuracy=0.91, train_accuracy=0.99, parameters=10, train_loss=0.1
    )
    measured = {"test_accuracy": 0.93, "train_accuracy": 0.9, "parameters": 10, "train_loss": 0.2}
    verdicts = {row.metric: row.verdict for row in compare(reported, measured)}
    assert verdicts == {
        "train_accuracy": "below",
        "test_accuracy": "within",  # at the very edge of the tolerance
        "train_loss": "above",
        "parameters": "within",
    }


def test_compare_says_what_was_not_measured():
    rows = compare(Reported(source="000", valid_accuracy=0.5), {"test_accuracy": 0.5})
    assert [row.verdict for row in rows] == ["not measured"]
    assert "not measured" in str(rows)


def test_parameters_must_be_equal():
    rows = compare(Reported(source="000", parameters=100), {"parameters": 101})
    assert rows[0].verdict == "above"


def test_a_bar_is_beaten_or_not_by_one_number():
    reported = Reported(
        source="000",
        best_test_accuracy=0.91,
        train_accuracy=0.5,
        train_loss=0.1,
        parameters=10,
        to_beat=True,
    )

    def verdicts(**measured):
        rows = compare(reported, {"train_accuracy": 0.5, **measured})
        return {row.metric: row.verdict for row in rows}

    beaten = verdicts(best_test_accuracy=0.95, test_accuracy=0.9, parameters=10)
    assert beaten == {"best_test_accuracy": "beaten", "parameters": "within"}
    assert verdicts(test_accuracy=0.95, parameters=9) == {  # no epoch was chosen
        "best_test_accuracy": "beaten",
        "parameters": "below",
    }
    assert verdicts(best_test_accuracy=0.91)["best_test_accuracy"] == "not beaten"
    assert verdicts()["best_test_accuracy"] == "not measured"
    beats = Reported(source="000", test_accuracy=0.9, to_beat=True)
    run = SimpleNamespace(
        recipe=SimpleNamespace(name="a/one_cycle", reported=beats),
        summary={"test_accuracy": 0.96},
    )
    assert [" ".join(line.split()) for line in str(check(run)).splitlines()] == [
        "to beat measured",
        "test_accuracy 0.9000 0.9600 beaten",
    ]


def test_check_prints_a_table():
    run = SimpleNamespace(
        recipe=SimpleNamespace(name="a", reported=Reported(source="000", test_accuracy=0.9147)),
        summary={"test_accuracy": 0.96},
    )
    assert str(check(run)).splitlines() == [
        "               reported  measured  within tolerance",
        "test_accuracy    0.9147    0.9600  no, above",
    ]


def test_check_without_a_report_says_so():
    run = SimpleNamespace(recipe=SimpleNamespace(name="a", reported=None), summary={})
    assert str(check(run)) == "nothing is reported for this experiment"

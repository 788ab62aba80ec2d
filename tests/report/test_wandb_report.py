"""What W&B is told of a report: nothing is asked offline, and the real client's `save` is read."""

import base64
import json
import os
import sys
import threading
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
from loopback import JsonServer
from typer.testing import CliRunner

from fastcv import cli, tracking
from fastcv.experiment.comparison import Experiment, Result, Unfinished
from fastcv.recipe.values import Reported
from fastcv.report import command, wandb_report

pytest.importorskip("wandb_workspaces", reason="needs the extra wandb-report")

KEY = "0" * 40  # of the form that W&B accepts
DEAD = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """Give W&B an empty home, no settings, and a server that nobody should ask."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("NETRC", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", DEAD)
    monkeypatch.chdir(home)


def result(folder, recipe, seed, wandb_id=None, changed=None, **measured):
    path = None
    if folder is not None:
        path = folder / f"{recipe.replace('/', '-')}-{seed}-{len(changed or {})}"
        path.mkdir()
        (path / "environment.json").write_text(json.dumps({"wandb_id": wandb_id}))
    return Result(
        recipe=recipe,
        seed=seed,
        measured=measured,
        epochs=2,
        seconds=12.0,
        device="cpu",
        device_name="a processor",
        precision="fp32",
        changed=changed or {},
        path=path,
    )


def ladder(folder):
    """A recipe of three experiments, and one each of: not logged, only stopped, never run."""
    reported = Reported(source="000, table 1", best_test_accuracy=0.9, train_loss=0.1)
    return [
        Experiment(
            name="net_data",
            summary="A net on data.",
            reported=Reported(source="000, table 1", test_accuracy=0.875),
            epochs=2,
            results=(
                result(folder, "net_data", 0, "aaaa", test_accuracy=0.91, best_test_accuracy=0.92),
                result(folder, "net_data", 1, "bbbb", test_accuracy=0.93, best_test_accuracy=0.94),
            ),
            changed=(
                result(folder, "net_data", 0, "cccc", {"data.size": (32, 16)}, test_accuracy=0.5),
            ),
        ),
        Experiment(
            name="net_data/deep",
            reported=reported,
            epochs=2,
            results=(result(folder, "net_data/deep", 0, "dddd", best_test_accuracy=0.89),),
        ),
        Experiment(
            name="net_data/one_cycle",
            reported=replace(reported, to_beat=True),
            epochs=2,
            results=(result(folder, "net_data/one_cycle", 0, "eeee", test_accuracy=0.95),),
        ),
        Experiment(
            name="digits",
            epochs=2,
            results=(
                result(folder, "digits", 0, None, valid_accuracy=0.97),
                result(None, "digits", 1, valid_accuracy=0.97),
            ),
        ),
        Experiment(
            name="later",
            epochs=9,
            unfinished=(Unfinished(recipe="later", seed=4, epochs=3, planned=9, path=folder),),
        ),
        Experiment(name="never", reported=Reported(source="001", valid_accuracy=0.49), epochs=7),
    ]


@pytest.fixture
def experiments(tmp_path):
    return ladder(tmp_path)


@pytest.fixture
def spec(experiments):
    return wandb_report.as_json(wandb_report.specification(experiments))["spec"]


def text(block):
    """The text of a block of the specification, its parts joined."""
    own = block.get("text", "")
    return block.get("content") or own + "".join(map(text, block.get("children", [])))


def sections(spec):
    """The blocks below each heading of the second level, by its text."""
    found, below = {}, None
    for block in spec["blocks"]:
        if block["type"] == "heading" and block["level"] == 2:
            below = found.setdefault(text(block), [])
        elif below is not None:
            below.append(block)
    return found


def grids(blocks):
    return [
        SimpleNamespace(
            run_sets=block["metadata"]["runSets"],
            panels=block["metadata"]["panelBankSectionConfig"]["panels"],
        )
        for block in blocks
        if block["type"] == "panel-grid"
    ]


def panels(grid, kind):
    return [panel for panel in grid.panels if panel["viewType"] == kind]


def rows(block):
    """The cells of a Markdown table, without its head."""
    lines = block["content"].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_specification_has_a_section_for_each_recipe_and_asks_nobody(spec):
    names = [*sections(spec)]
    assert names == [
        *("net_data", "digits", "later", "never"),
        *("Unfinished runs", "Not run", "How to read this"),
    ]
    assert "WANDB_SERVICE" not in os.environ
    assert text(sections(spec)["net_data"][0]) == "A net on data."


def test_tables_hold_the_numbers_of_the_experiments(spec):
    found = sections(spec)
    [main, changed] = [b for b in found["net_data"] if b["type"] == "markdown-block"]
    assert [row[:6] for row in rows(main)] == [
        ["`net_data`", "test accuracy", "87.5 %", "92.00 ± 1.41 %", "no, above", "2"],
        ["`net_data/deep`", "best test accuracy", "90 %", "89.00 %", "yes", "2"],
        ["", "train loss", "0.1", "not measured", "", ""],
        [
            *("`net_data/one_cycle`", "best test accuracy", "to beat: 90 %"),
            *("95.00 % (final weights)", "beaten", "2"),
        ],
    ]
    assert rows(main)[0][6:] == ["12 s", "a processor, fp32", "0, 1"]
    assert rows(changed)[0][:3] == ["`net_data`", "`data.size: 32 → 16`", "50.00 % test"]
    [never] = rows(found["never"][0])
    assert never[:6] == ["`never`", "validation accuracy", "49 %", "not run", "", "7 planned"]
    [digits] = rows(found["digits"][0])
    assert digits[:4] == ["`digits`", "validation accuracy", "none", "97.00 ± 0.00 %"]


def test_what_did_not_run_is_listed(spec):
    found = sections(spec)
    assert [text(block) for block in found["Not run"]] == ["laternever"]
    assert [text(block) for block in found["Unfinished runs"]] == ["later, seed 4: 3 of 9 epochs"]
    assert "within tolerance" in text(found["How to read this"][0])


def test_run_sets_are_the_runs_of_the_table_and_no_others(spec):
    exact, changed = grids(sections(spec)["net_data"])
    for grid, name, ids in [
        (exact, "net_data", ["aaaa", "bbbb", "dddd", "eeee"]),
        (changed, "net_data, changed", ["cccc"]),
    ]:
        [run_set] = grid.run_sets
        assert run_set["name"] == name
        assert "project" not in run_set  # so they are of the report's own
        [only] = run_set["filters"]["filters"]
        assert only["key"] == {"section": "run", "name": "name"}  # W&B's word for a run's id
        assert (only["op"], only["value"], only["disabled"]) == ("IN", ids, False)


def test_a_run_that_was_not_logged_has_no_charts(spec):
    found = sections(spec)
    assert not grids(found["digits"] + found["later"] + found["never"])


def test_line_plots_draw_what_runs_log(spec):
    for grid in grids(sections(spec)["net_data"]):
        drawn = [panel["config"] for panel in panels(grid, "Run History Line Plot")]
        assert [(each["xAxis"], each["metrics"]) for each in drawn] == [
            ("epoch", ["train/loss", "valid/loss"]),
            ("epoch", ["train/accuracy", "valid/accuracy"]),
            ("step", ["step/lr"]),
        ]
        [run_set] = grid.run_sets
        ids = run_set["filters"]["filters"][0]["value"]
        assert {each["limit"] for each in drawn} == {len(ids)}  # left alone W&B draws ten


def test_bars_stand_reported_beside_measured_as_runs_summarise_it(spec):
    exact, changed = grids(sections(spec)["net_data"])
    final, best = [panel["config"] for panel in panels(exact, "Bar Chart")]
    assert final["chartTitle"] == "test accuracy"
    assert final["metrics"] == ["reported/test_accuracy", "measured/test_accuracy"]
    # A one_cycle run has no best epoch on the test set; the table holds its final weights up.
    assert best["metrics"] == [
        *("reported/best_test_accuracy", "measured/best_test_accuracy", "test_accuracy")
    ]
    assert best["groupBy"] == "name.value"  # of the config: recipe/variant
    assert (best["groupAgg"], best["groupArea"]) == ("mean", "stddev")
    assert not panels(changed, "Bar Chart")  # nothing is compared with what it is not


def test_panels_show_the_figures_and_do_not_overlap(spec):
    exact, _ = grids(sections(spec)["net_data"])
    shown = [panel["config"]["mediaKeys"] for panel in panels(exact, "Media Browser")]
    assert ["figures/confusion_matrix"] in shown
    assert ["figures/predictions"] in shown
    for one, other in combinations([panel["layout"] for panel in exact.panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_report_without_any_run_is_tables_and_a_list(tmp_path):
    none = [Experiment(name="a", epochs=1), Experiment(name="b", epochs=1)]
    spec = wandb_report.as_json(wandb_report.specification(none))["spec"]
    assert not grids(spec["blocks"])
    assert text(sections(spec)["Not run"][0]) == "ab"


class Server(JsonServer):
    """W&B's server as far as publishing needs it.

    Args:
        status: as a `JsonServer` has it.
        projects: that the account has already.
        entity: of the account.
    """

    def __init__(self, status=200, projects=(), entity="someone"):
        super().__init__(status)
        self.projects, self.entity = projects, entity

    def operations(self, word):
        """The variables of every operation whose text has the word."""
        bodies = [json.loads(body) for _, _, body in self.posts]
        return [body["variables"] for body in bodies if word in body["query"]]

    def answer(self, path, body):
        asked = json.loads(body) if path == "/graphql" else {"query": ""}
        return {"data": self._data(asked["query"], asked.get("variables"))}

    def _data(self, query, given):
        if "mutation upsertView" in query:
            view = {
                "id": "VmlldzoxMjM=",
                "type": given["type"],
                "name": given["name"],
                "displayName": given["displayName"],
                "description": given["description"],
                "project": {
                    "id": "p",
                    "name": given["projectName"],
                    "entityName": given["entityName"],
                },
                "spec": given["spec"],
                "updatedAt": "2020-01-01T00:00:00",
            }
            return {"upsertView": {"view": view, "inserted": True}}
        if "mutation CreateProject" in query:
            return {"result": {"project": None, "model": None, "inserted": True}}
        if "query GetProjects" in query:
            rest = {"__typename": "Project", "entityName": "team", "isBenchmark": False}
            rest |= {"createdAt": "2020-01-01T00:00:00Z", "user": None}
            projects = [{"node": rest | {"id": p, "name": p}} for p in self.projects]
            ends = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}
            return {"models": {"edges": projects, "pageInfo": ends}}
        account = {"id": "v", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": account | {"entity": self.entity}}


@pytest.fixture
def published(monkeypatch, tmp_path, experiments):
    """Write the report with an account on a server; gives its file and what was said."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    def publish(server, **environment):
        monkeypatch.setenv("WANDB_BASE_URL", server.url if server else DEAD)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        said = []
        wandb_report.write(experiments, tmp_path, said.append)
        return json.loads((tmp_path / "report_wandb.json").read_text()), said

    return publish


def test_save_sends_what_the_file_holds(published, tmp_path, experiments, capfd):
    with Server() as server:
        written, said = published(server)
    [sent] = server.operations("mutation upsertView")
    assert json.loads(sent["spec"]) == written["spec"]
    assert sent["displayName"] == written["displayName"] == "fastcv report"
    assert sent["description"] == written["description"]
    assert (sent["entityName"], sent["projectName"]) == ("someone", "fastcv")  # where runs go
    assert sent["type"] == "runs"  # published, no draft
    assert sent["id"] is None  # a new one
    [project] = server.operations("mutation CreateProject")
    assert project["input"] == {"name": "fastcv", "entityName": "someone"}
    address = f"{server.url}/someone/fastcv/reports/fastcv-report--VmlldzoxMjM="
    assert said == [str(tmp_path / "report_wandb.json"), address]
    assert capfd.readouterr() == ("", "")
    # The same report made again differs by the ids of its panels and run sets alone.
    again = wandb_report.as_json(wandb_report.specification(experiments))
    assert without_ids(again["spec"]) == without_ids(json.loads(sent["spec"]))


def without_ids(value):
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("id", "__id__")}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


def test_save_asks_for_nothing_else_and_leaves_nothing(published, tmp_path):
    before = set(threading.enumerate())
    with Server() as server:
        published(server)
        threads = set(threading.enumerate()) - before - {server.thread}
    secret = base64.b64encode(f"api:{KEY}".encode()).decode()
    assert {(path, key) for path, key, _ in server.posts} == {("/graphql", f"Basic {secret}")}
    assert "WANDB_SERVICE" not in os.environ
    assert not [thread for thread in threads if not thread.name.startswith("Thread-")]
    assert not [*(tmp_path / "home").rglob("*")]


def test_environment_says_whose_report_it_is(published):
    with Server(projects=("mine",)) as server:
        published(server, WANDB_ENTITY="team", WANDB_PROJECT="mine")
    [sent] = server.operations("mutation upsertView")
    assert (sent["entityName"], sent["projectName"]) == ("team", "mine")
    assert server.operations("mutation CreateProject") == []  # it is there


def test_account_without_an_entity_is_one_sentence(published):
    with Server(entity=None) as server, pytest.raises(ValueError, match="WANDB_ENTITY must name"):
        published(server)
    assert not server.operations("mutation")


def test_settings_that_wandb_refuses_are_one_sentence(published, monkeypatch):
    with pytest.raises(ValueError, match=r"W&B's settings must let it start.*URL") as raised:
        published(None, WANDB_BASE_URL="")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "401"), (0, "no answer within"), (None, "no answer within")]
)
def test_refusal_and_silence_are_one_sentence_and_the_file_is_there(
    status, reason, published, tmp_path, monkeypatch, capfd
):
    if reason != "401":
        monkeypatch.setattr(tracking.service, "PUBLISH_TIMEOUT", 1.0)
    with Server(status or 200) as server:
        if status == 0:
            server.status = 0
        with pytest.raises(ValueError, match=reason) as raised:
            published(None if status is None else server)
        address = DEAD if status is None else server.url
    message = str(raised.value)
    assert "\n" not in message
    assert address in message
    file = tmp_path / "report_wandb.json"
    assert message.endswith(f"the report's specification is in {file}")
    assert json.loads(file.read_text())["spec"]["blocks"]
    assert "WANDB_SERVICE" not in os.environ
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "no API key is configured (`wandb login`)"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "W&B is kept offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "W&B is switched off"),
    ],
    ids=["no key", "offline", "disabled"],
)
def test_command_without_an_account_writes_the_file_and_says_so(
    environment, why, experiments, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(command, "gather", lambda *asked: experiments[3:])
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("asked for a key"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out, said = tmp_path / "out", []
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        command.report([tmp_path], out=out, wandb=True, write=said.append)
        assert server.posts == []
    file = out / "report_wandb.json"
    assert said[-3] == str(file)
    assert said[-2].startswith(f"{file} has tables and no charts: ")
    assert said[-1] == (
        f"the W&B Report was not published, because {why}: {file} is its specification, "
        "and the same command publishes it with an account"
    )
    assert json.loads(file.read_text())["displayName"] == "fastcv report"
    assert capfd.readouterr() == ("", "")


def test_command_without_the_extra_says_which_before_it_does_anything(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"needs the extra wandb-report: pip install 'fastcv\["):
        command.report([tmp_path], out=out, wandb=True, write=pytest.fail)
    assert not out.exists()


@pytest.mark.parametrize("other", ["--readme", "--save-results=there"])
def test_command_line_refuses_wandb_where_no_report_is_written(other):
    ran = CliRunner().invoke(cli.app, ["report", "--wandb", other])
    assert "--wandb needs a report" in str(ran.exception)
    assert ran.output == ""

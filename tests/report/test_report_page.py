"""The report's page, read in a real browser."""

import json
import os
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest

from fastcv import catalogue
from fastcv.experiment.train import train
from fastcv.recipe import override
from fastcv.report import gather, write

selenium = pytest.importorskip("selenium", reason="needs selenium, of the extra test")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
RECIPES = ("digits", "light_resnet_cifar10", "mnist_cnn", "transfer_resnet50")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_run):
    """A report of a real short run, of whole runs with its figures, and of what else can be."""
    folder = tmp_path_factory.mktemp("page")
    short = override(catalogue.get_recipe("digits"), "schedule.0.epochs=1")
    figures = train(short, out=folder / "runs", wandb="off", device="cpu").path / "figures"
    for seed, accuracy in ((0, 0.985), (1, 0.995)):
        write_run(
            folder / "runs", "mnist_cnn/regularized", seed=seed, test_accuracy=accuracy,
            train_accuracy=0.9, figures=figures,
        )  # fmt: skip
    write_run(folder / "runs", "light_resnet_cifar10/one_cycle", test_accuracy=0.92)
    write_run(folder / "runs", "digits", finished=False, epochs=3, seed=5)
    experiments = [
        each for each in gather([folder / "runs"]) if each.name.partition("/")[0] in RECIPES
    ]
    _, file = write(experiments, folder / "out", ["a/<run>: left out, it cannot be read"])
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    os.environ["SE_OFFLINE"] = "true"  # selenium looks for no driver and tells nobody of its use
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get("about:blank")
    yield driver
    driver.quit()


def opened(browser, file):
    """Open a page; return the addresses it asked for and what its console said."""
    browser.get("about:blank")
    for log in ("performance", "browser"):
        browser.get_log(log)  # reading empties it
    browser.get(file.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return asked, [entry["message"] for entry in browser.get_log("browser")]


def foreign(asked, file):
    return [url for url in asked if url != file.as_uri() and not url.startswith("data:")]


@needs_browser
def test_tables_and_figures_are_there_and_nothing_is_fetched(browser, page):
    asked, console = opened(browser, page)
    assert page.as_uri() in asked
    assert foreign(asked, page) == []
    assert console == []
    images = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    assert all(complete and width > 300 and alt for complete, width, alt in images)
    alts = [alt for *_, alt in images]
    for shown in ("Loss and accuracy", "Confusion matrix", "Predictions"):
        for name in ("digits", "mnist_cnn/regularized"):
            assert any(alt.startswith(shown) and name in alt for alt in alts), (shown, name)
    assert any("vgg" not in alt and "light_resnet_cifar10/model0 91.28 %" in alt for alt in alts)
    assert any("mnist_cnn/regularized +0.77" in alt for alt in alts)
    folded = browser.execute_script(
        "const folds = [...document.querySelectorAll('details')];"
        "const names = folds.map(f => [f.open, f.querySelector('summary').innerText]);"
        "folds.forEach(f => f.open = true); return names"
    )
    rows = browser.execute_script(
        "return [...document.querySelectorAll('table.results tbody tr.first')]"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    named = {row[0].split()[0]: row for row in rows}
    assert set(named) == {
        entry.name for entry in catalogue.entries() if entry.name.partition("/")[0] in RECIPES
    }
    count = len(named) - 3  # two were run, and one has two names
    assert folded == [[False, f"{count} experiments of the catalogue were not run in full"]]
    assert named["mnist_cnn/regularized"][1:] == [
        "test accuracy", "98.23 %", "99.00 ± 0.71 %", "✓ yes", "15", "60 s", "A, fp32", "0, 1",
    ]  # fmt: skip
    assert named["light_resnet_cifar10/one_cycle"][2:5] == [
        "to beat: 91.47 %", "92.00 % (final weights)", "✓ beaten",
    ]  # fmt: skip
    assert named["transfer_resnet50"][3] == "not run"
    assert named["digits"][3] == "not run"
    (changed,) = browser.execute_script(
        "return [...document.querySelectorAll('table.changed tbody tr')].map(r => r.innerText)"
    )
    assert "schedule.0.epochs: 10 → 1" in changed
    (stopped,) = browser.execute_script(
        "return [...document.querySelectorAll('table.unfinished tbody tr')].map(r => r.innerText)"
    )
    assert "3 of 10" in stopped
    assert "a/<run>: left out" in browser.execute_script("return document.body.innerText")


@needs_browser
@pytest.mark.parametrize("width", [360, 1200, 1230, 1280, 1920])
def test_the_page_fits_every_screen(browser, page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened(browser, page)
    wide, seen = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert wide == seen
    assert browser.execute_script(
        "return [...document.querySelectorAll('td')].every(c => c.scrollWidth <= c.clientWidth + 1)"
    )


@needs_browser
def test_the_page_is_dark_where_the_reader_wants_it(browser, page):
    grounds = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        opened(browser, page)
        said = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        grounds[scheme] = sum(int(each) for each in re.findall(r"\d+", said)[:3])
    assert grounds["dark"] < 150 < 600 < grounds["light"]


@needs_browser
@pytest.mark.parametrize(
    "harm",
    [
        '<img src="http://127.0.0.1:9/a.png" alt="x">',
        '<link rel="stylesheet" href="http://127.0.0.1:9/a.css">',
        "<script>throw new Error('harm')</script>",
        '<img src="beside.png" alt="x">',
    ],
)
def test_what_the_page_must_not_do_would_be_seen(browser, page, tmp_path, harm):
    harmed = tmp_path / "harmed.html"
    harmed.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{harm}</main>"))
    asked, console = opened(browser, harmed)
    assert foreign(asked, harmed) or console
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", harmed.read_text(encoding="utf-8"))
    harmed.write_text(without_policy)
    asked, console = opened(browser, harmed)
    assert foreign(asked, harmed) or console


def test_the_page_is_one_file_with_headings_and_anchors_in_order(page):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "url(" not in text
    anchors = re.findall(r'href="#([^"]+)"', text)
    names = re.findall(r'id="([^"]+)"', text)
    assert set(anchors) <= set(names)
    assert len(names) == len(set(names))
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.stat().st_size < 3_000_000


def test_a_broken_picture_is_left_out_and_said(tmp_path, write_run):
    run = write_run(tmp_path / "runs", "digits", valid_accuracy=0.98)
    (run / "figures").mkdir()
    (run / "figures" / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    lines = []
    digits = [each for each in gather([tmp_path / "runs"]) if each.name == "digits"]
    _, file = write(digits, tmp_path / "out", warn=lines.append)
    assert "curves.png: left out" in lines[0]
    assert "curves.png: left out" in file.read_text(encoding="utf-8")


def test_names_and_lines_are_escaped(tmp_path, write_run):
    write_run(tmp_path, "digits", "schedule.0.epochs=3", file="/x.py", valid_accuracy=0.5)
    own = [replace(each, name="<b>&") for each in gather([tmp_path]) if each.own]
    _, file = write(own, tmp_path / "out", ["<script>alert()</script>"])
    text = file.read_text(encoding="utf-8")
    assert "<code>&lt;b&gt;&amp;</code>" in text
    assert "<script" not in text

"""The page as people use it, in a real browser, and the endpoint as programs use it."""

import io
import shutil
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

pytest.importorskip("gradio", reason="the extra serve is not installed")

import httpx  # it comes with Gradio
from photos import HEIC

from fastcv.data import decoding
from fastcv.predict import serve

OLDER = Path(__file__).parent.parent / "older" / "finished"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The page, served by a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-P", "-m", "fastcv.cli"),
                *("serve", str(OLDER), "--port", str(port), "--device", "cpu"),
            ],
            stdout=opened,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        last = time.monotonic() + 120
        while not answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < last, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def answers(address):
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A seven and a three, and what a careless person may drop instead."""
    folder = tmp_path_factory.mktemp("pictures")
    levels, targets = load_digits(return_X_y=True)
    for name in (3, 7):
        pixels = np.rint(levels[targets == name][0].reshape(8, 8) * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(
            folder / f"{name}.png"
        )
    Image.new("L", (10_000, 5_000)).save(folder / "huge.png")
    (folder / "text.png").write_text("This is no image.")
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[:2000])
    return folder


REFUSED = [
    ("huge.png", "an image must have at most 40 megapixels, got 50.0 (10,000 x 5,000)"),
    ("text.png", "the file must be an image that can be read, but it is not an image of a known"),
    ("truncated.jpg", "the image must be whole, but it cannot be read"),
]


def post(url, path, **query):
    with path.open("rb") as file:
        return httpx.post(f"{url}/predict", files={"file": (path.name, file)}, params=query)


def test_programs_get_json(url, pictures):
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "model": "digits", "classes": 10}
    found = post(url, pictures / "7.png", top=3).json()["predictions"]
    assert found[0]["class"] == "7"
    assert len(found) == 3
    assert 1 >= found[0]["probability"] >= found[1]["probability"]


@pytest.mark.parametrize(("name", "sentence"), REFUSED)
def test_programs_are_told_what_is_wrong_with_a_file(url, pictures, name, sentence):
    answer = post(url, pictures / name)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("top", [0, -1])
def test_programs_must_ask_for_a_class_or_more(url, pictures, top):
    answer = post(url, pictures / "7.png", top=top)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "top"]


def test_the_name_of_an_upload_does_not_matter(url, pictures):
    for name in ("7." + "g" * 300, "seven", "7.txt"):
        files = {"file": (name, (pictures / "7.png").read_bytes())}
        answer = httpx.post(f"{url}/predict", files=files)
        assert answer.json()["predictions"][0]["class"] == "7"


def test_heic_photos_are_let_in_whatever_their_suffix(tmp_path):
    pytest.importorskip("pi_heif")
    for name in ("photo.heic", "photo.jpg"):
        (tmp_path / name).write_bytes(HEIC)
        serve.check_image(tmp_path / name)


def test_heic_photos_without_their_extra_name_it(tmp_path, monkeypatch):
    decoding._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "photo.jpg").write_bytes(HEIC)
    with pytest.raises(ValueError, match="but HEIC photos need the extra heic: pip install"):
        serve.check_image(tmp_path / "photo.jpg")


def test_an_image_that_pillow_would_not_open_is_refused_by_its_size(pictures, tmp_path):
    png = bytearray((pictures / "7.png").read_bytes())
    png[16:24] = struct.pack(">II", 20_000, 10_000)  # in its header
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "bomb.png").write_bytes(png)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match="at most 40 megapixels, got more than 179: send"):
        serve.check_image(tmp_path / "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_upload_that_is_too_large_is_refused(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=r"at most 0 MB, got 0\.0 MB"):
        serve.check_image(file, most_bytes=1000)


def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("disable-quic", "window-size=1000,800"),
    ):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    return webdriver.Chrome(options, service)


@pytest.fixture(scope="module")
def browsers():
    """The browsers of two people."""
    pytest.importorskip("selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    drivers = [browser(), browser()]
    try:
        yield drivers
    finally:
        for driver in drivers:
            driver.quit()


@pytest.fixture
def users(url, browsers):
    """Two people, each with the page freshly opened in a browser."""
    for driver in browsers:
        driver.get(url)
        wait(driver, lambda d: d.find_elements("css selector", "#image input[type=file]"))
    return browsers


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(condition)


def drop(driver, path):
    driver.find_element("css selector", "#image input[type=file]").send_keys(str(path))


def shows(text):
    return lambda driver: text in driver.find_element("tag name", "body").text


def test_two_people_drop_pictures_and_read_their_classes(users, pictures):
    for driver, name in zip(users, (7, 3), strict=True):
        drop(driver, pictures / f"{name}.png")
    for driver, name in zip(users, ("7", "3"), strict=True):
        best = wait(driver, lambda d: d.find_elements("css selector", "#classes h2"))
        wait(driver, lambda d, best=best, name=name: best[0].text == name)
        wait(driver, lambda d: d.find_elements("css selector", "#look img"))


@pytest.mark.parametrize(("name", "sentence"), REFUSED)
def test_a_person_is_told_what_is_wrong_with_a_file(users, pictures, name, sentence):
    drop(users[0], pictures / name)
    wait(users[0], shows(sentence))

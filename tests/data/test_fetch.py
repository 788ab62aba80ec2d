"""Looking data up, and fetching it: the real code against a small server on loopback."""

import gc
import gzip
import hashlib
import io
import os
import struct
import tarfile
import threading
import warnings
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from fastcv.data import birds, cifar10, cifar100, mnist
from fastcv.data.sources import birds as birds_module
from fastcv.data.sources import cifar, named
from fastcv.data.sources.birds import BIRDS, Archive
from fastcv.data.sources.cifar import CIFAR10, CIFAR100
from fastcv.data.sources.mnist import MNIST


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path) -> Path:
    """Give fastai an empty data folder, and no $FASTCV_DATA."""
    from fastai.data.external import fastai_cfg

    monkeypatch.delenv("FASTCV_DATA", raising=False)
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai"))
    fastai_cfg.cache_clear()
    yield tmp_path / "fastai" / "data"
    fastai_cfg.cache_clear()


class Server:
    """A server of `files` (path: content) on loopback, which can break off or go away."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.share = 1.0
        self.asked: list[str] = []
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path.partition("?")[0])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: int(len(content) * outer.share)])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=partial(self.http.serve_forever, 0.01), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    started = Server()
    yield started
    started.stop()
    with warnings.catch_warnings():
        # torchvision leaves refused answers open; a later test is not to be blamed for them.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def serve_cifar10(server: Server, monkeypatch) -> None:
    # Image folders stand for the pickled batches, which test_sources reads.
    files = {f"{part}/{label}/0.png": png() for part in ("train", "test") for label in "ab"}
    archive = packed(files)
    server.files["/cifar-10-python.tar.gz"] = archive
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}/cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))


def serve_mnist(server: Server, monkeypatch) -> None:
    resources = []
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", (4, 28, 28)), ("labels-idx1", (4,))):
            head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
            pixels = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).tobytes()
            content = gzip.compress(head + pixels)
            server.files[f"/{part}-{kind}-ubyte.gz"] = content
            resources.append((f"{part}-{kind}-ubyte.gz", md5(content)))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)


def serve_birds(server: Server, monkeypatch) -> None:
    names = [f"{label}/{n}.png" for label in ("001.Albatross", "002.Auklet") for n in range(2)]
    contents = {
        "images.tgz": packed(
            {f"images/{name}": png() for name in names} | {"images/001.Albatross/._0.png": b"x"}
        ),
        "lists.tgz": packed(
            {
                "lists/train.txt": "\n".join(names[0::2]).encode(),
                "lists/test.txt": "\n".join(names[1::2]).encode(),
            }
        ),
    }
    server.files |= {f"/{file}": content for file, content in contents.items()}
    archives = tuple(
        Archive(file, f"{server.url}/{file}?confirm=t", hashlib.sha256(content).hexdigest())
        for file, content in contents.items()
    )
    monkeypatch.setattr(birds_module, "ARCHIVES", archives)


SERVED = [(cifar10, serve_cifar10), (mnist, serve_mnist), (birds, serve_birds)]
each_set = pytest.mark.parametrize(("source", "serve"), SERVED, ids=["cifar10", "mnist", "birds"])


def failure(source) -> str:
    with pytest.raises(ValueError, match="is not on this machine and must be fetched") as caught:
        source()
    said = str(caught.value)
    assert "\n" not in said
    return said


# Fetching


@each_set
def test_fetch_puts_a_whole_set_into_fastais_data_folder(data, server, monkeypatch, source, serve):
    serve(server, monkeypatch)
    samples = source()
    name = source.__name__
    assert [len(part) for part in samples[:3]] == {
        "cifar10": [2, 0, 2],
        "mnist": [4, 0, 4],
        "birds": [2, 0, 2],
    }[name]
    assert os.listdir(data) == [name]
    archives = [path for path in data.rglob("*") if path.suffix in (".gz", ".tgz")]
    assert archives == []
    asked = len(server.asked)
    assert [len(part) for part in source()[:3]] == [len(part) for part in samples[:3]]
    assert len(server.asked) == asked


def test_fetch_shows_a_progress_bar(data, server, monkeypatch, capsys):
    serve_cifar10(server, monkeypatch)
    cifar10()
    assert "100%" in capsys.readouterr().err


def test_fetched_folder_is_as_open_as_any_other(data, server, monkeypatch):
    serve_cifar10(server, monkeypatch)
    cifar10()
    other = data / "other"
    other.mkdir()
    assert (data / "cifar10").stat().st_mode == other.stat().st_mode


@each_set
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_fetch_of_a_truncated_file_leaves_nothing(data, server, monkeypatch, source, serve, share):
    serve(server, monkeypatch)
    server.share = share
    said = failure(source)
    assert "truncated or altered" in said
    assert f"'{data / source.__name__}'" in said
    assert "$FASTCV_DATA" in said
    assert "--data PATH" in said
    assert os.listdir(data) == []


@each_set
def test_fetch_of_an_altered_file_leaves_nothing(data, server, monkeypatch, source, serve):
    serve(server, monkeypatch)
    # The file that comes last: what came before it was good, and goes with it.
    last = list(server.files)[-1] if source is not birds else "/lists.tgz"
    content = server.files[last]
    server.files[last] = content[:-1] + bytes([content[-1] ^ 1])
    assert "checksum" in failure(source)
    assert os.listdir(data) == []


@each_set
def test_fetch_from_a_server_that_is_gone_leaves_nothing(data, server, monkeypatch, source, serve):
    serve(server, monkeypatch)
    server.stop()
    assert "refused" in failure(source)
    assert os.listdir(data) == []


@each_set
def test_fetch_of_a_file_that_is_gone_leaves_nothing(data, server, monkeypatch, source, serve):
    serve(server, monkeypatch)
    server.files.clear()
    assert "404" in failure(source)
    assert os.listdir(data) == []


def test_fetch_without_a_network_says_so(data, monkeypatch):
    # A name that can never be resolved (RFC 6761).
    monkeypatch.setattr(datasets.CIFAR100, "url", "http://data.invalid/cifar-100-python.tar.gz")
    assert "did not answer in full" in failure(cifar100)
    assert os.listdir(data) == []


def test_fetch_gives_a_silent_server_up(data, server, monkeypatch):
    serve_cifar10(server, monkeypatch)
    monkeypatch.setattr(named, "SILENCE", 0.2)
    waiting = []
    monkeypatch.setattr(server.http, "process_request", lambda *asked: waiting.append(asked))
    assert "timed out" in failure(cifar10)
    assert waiting
    for request, _ in waiting:
        request.close()
    assert os.listdir(data) == []


def test_fetch_of_what_is_no_archive_leaves_nothing(data, server, monkeypatch):
    serve_cifar10(server, monkeypatch)
    page = b"<html>log in first</html>"
    server.files["/cifar-10-python.tar.gz"] = page
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(page))
    assert "unpack" in failure(cifar10)
    assert os.listdir(data) == []


def test_fetch_refuses_archives_that_write_elsewhere(data, server, monkeypatch):
    serve_cifar10(server, monkeypatch)
    archive = packed({"../../escaped.txt": b"x"})
    server.files["/cifar-10-python.tar.gz"] = archive
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    assert "unpack" in failure(cifar10)
    assert list(data.parent.rglob("escaped.txt")) == []


def test_fetch_interrupted_leaves_nothing(data, monkeypatch):
    def stopped(folder: Path) -> None:
        (folder / "half.bin").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar, "CIFAR10", replace(CIFAR10, download=stopped))
    with pytest.raises(KeyboardInterrupt):
        cifar10()
    assert os.listdir(data) == []


def test_fetch_into_a_folder_that_cannot_be_written_is_one_sentence(data, monkeypatch):
    data.parent.mkdir()
    (data.parent / "config.ini").write_text(f"[DEFAULT]\ndata = {data}\narchive = archive\n")
    data.write_text("a file where the folder should be")
    assert str(data) in failure(cifar10)


def test_two_fetches_at_once_share_the_first_to_finish(data, monkeypatch):
    # fastai makes its configuration at the first question, and not for two threads at once.
    assert CIFAR10.find() is None
    both_began = threading.Barrier(2)
    downloads = []

    def download(folder: Path) -> None:
        both_began.wait(timeout=10)
        downloads.append(folder)
        for part in ("train", "test"):
            for label in "ab":
                (folder / part / label).mkdir(parents=True)
                (folder / part / label / "0.png").write_bytes(png())

    found = replace(CIFAR10, download=download)
    got = []
    threads = [threading.Thread(target=lambda: got.append(found.fetch())) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(downloads)) == 2
    assert got == [data / "cifar10"] * 2
    assert os.listdir(data) == ["cifar10"]
    assert len(cifar10().train) == 2


# Looking up


def folders(root: Path, *classes: str) -> Path:
    for part in ("train", "test"):
        for label in classes:
            (root / part / label).mkdir(parents=True)
            (root / part / label / "0.png").write_bytes(png())
    return root


def test_find_prefers_the_path_then_the_variable_then_fastais_folder(data, tmp_path, monkeypatch):
    fastais = folders(data / "cifar10", "a", "b")
    assert CIFAR10.find() == fastais
    mine = folders(tmp_path / "sets" / "cifar10", "a", "b")
    monkeypatch.setenv("FASTCV_DATA", str(tmp_path / "sets"))
    assert CIFAR10.find() == mine
    assert CIFAR10.find(tmp_path) == tmp_path
    assert cifar10().root == mine


@pytest.mark.parametrize(
    ("known", "folder"),
    [(known, folder) for known in (MNIST, CIFAR10, CIFAR100, BIRDS) for folder in known.folders],
    ids=lambda each: getattr(each, "name", each),
)
def test_find_knows_every_name_of_a_set(tmp_path, monkeypatch, known, folder):
    monkeypatch.setenv("FASTCV_DATA", str(tmp_path))
    (tmp_path / folder).mkdir()
    assert known.find() is None
    (tmp_path / folder / "something").touch()
    assert known.find() == tmp_path / folder


def test_find_does_not_take_the_birds_of_2011_from_fastais_folder(data, tmp_path, monkeypatch):
    (data / "CUB_200_2011" / "images").mkdir(parents=True)
    assert BIRDS.find() is None
    monkeypatch.setenv("FASTCV_DATA", str(data))
    assert BIRDS.find() == data / "CUB_200_2011"


def test_variable_that_names_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCV_DATA", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"\$FASTCV_DATA must name a folder.*gone"):
        mnist()


def test_path_without_the_data_is_never_fetched_into(data, tmp_path, server, monkeypatch):
    serve_cifar10(server, monkeypatch)
    with pytest.raises(ValueError, match="no images"):
        cifar10(tmp_path)
    assert server.asked == []


def test_unwritable_configuration_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"\$FASTAI_HOME"):
        cifar10()


@pytest.mark.network
@pytest.mark.skipif(not os.environ.get("FASTCV_NETWORK"), reason="FASTCV_NETWORK is not set")
@pytest.mark.parametrize(("source", "train"), [(mnist, 60_000), (cifar10, 50_000), (birds, 3_000)])
def test_fetch_from_the_real_servers(source, train):
    assert len(source().train) == train

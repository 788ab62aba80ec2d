import base64
import hashlib
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastcv
from fastcv import cli
from fastcv.experiment.share import share

OLDER = Path(__file__).parent.parent / "older" / "finished"


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hugging Face Hub that a push speaks to, on loopback.

    Large files (safetensors, onnx) go through Git LFS's basic transfer, the others with the commit.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refuse = {}  # the end of a path: the status to answer with
        self.asked, self.tokens, self.large, self.files, self.created = [], set(), {}, {}, None

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def answer(self, path, body):
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.url}/me/digits"}
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlicense:")
            return {"warnings": [], "errors": []}
        if path == "/api/models/me/digits/preupload/main":
            return {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": "lfs"
                        if each["path"].endswith((".safetensors", ".onnx"))
                        else "regular",
                        "shouldIgnore": False,
                    }
                    for each in json.loads(body)["files"]
                ]
            }
        if path == "/me/digits.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            return {
                "transfer": "basic",
                "objects": [
                    each
                    | {
                        "authenticated": True,
                        "actions": {"upload": {"href": f"{self.url}/large/{each['oid']}"}},
                    }
                    for each in objects
                ],
            }
        if path == "/api/models/me/digits/commit/main":
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.files[value["path"]] = self.large[value["oid"]]
            return {"commitUrl": f"{self.url}/me/digits/commit/abc", "commitOid": "abc"}
        raise AssertionError(path)


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(path)
        self.server.tokens.add(self.headers.get("authorization"))
        refused = [code for end, code in self.server.refuse.items() if path.endswith(end)]
        if refused:
            self._reply(refused[0], {"error": "You may not do this"})
        else:
            self._reply(200, self.server.answer(path, body))

    def do_GET(self):
        self.server.asked.append(self.path)
        self._reply(404, {"error": "Repository not found"})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self._reply(200, {})

    def _reply(self, status, answer):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra hub")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is no HTTP of ours
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def run(tmp_path):
    """A finished run with what must not leave it."""
    run = shutil.copytree(OLDER, tmp_path / "run")
    (run / "last.ckpt").write_bytes(b"PK checkpoint")
    (run / "weights.pth").write_bytes(b"\x80 pickle")
    (run / "export").mkdir()
    (run / "export" / "model.pt2").write_bytes(b"PK archive")
    return run


def test_a_run_is_pushed_and_loaded_again(hub, run, tmp_path):
    (run / "export" / "model.onnx").write_bytes(b"\x08\x0a graph")
    (run / "export" / "resize.py").write_text("# resize\n", encoding="utf-8")
    lines = []
    address = share(run, "me/digits", license="apache-2.0", write=lines.append)
    assert address == f"{hub.url}/me/digits"
    assert lines[0].startswith(f"{address}: model.safetensors, model.json")
    assert set(hub.files) == {
        "model.safetensors",
        "model.json",
        "classes.json",
        "README.md",
        "model.onnx",
        "resize.py",
    }
    assert hub.created["name"] == "digits"
    assert hub.created["organization"] == "me"
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert hub.files["model.onnx"] == b"\x08\x0a graph"
    card = hub.files["README.md"].decode()
    assert card == (run / "MODEL.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert 'snapshot_download("me/digits")' in card
    for content in hub.files.values():
        assert b"/home/somebody" not in content
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in hub.files.items():
        (fetched / name).write_bytes(content)
    ours, theirs = (fastcv.load(each, device="cpu") for each in (run, fetched))
    image = fastcv.digits().train[0].image
    assert (ours(image).probabilities == theirs(image).probabilities).all()


def test_a_private_repository_and_a_card_of_ones_own(hub, run, tmp_path):
    own = tmp_path / "own.md"
    own.write_text("---\nlicense: mit\n---\n# Mine\n", encoding="utf-8")
    arguments = ["share", str(run), "me/digits", "--private", "--card", str(own)]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert hub.files["README.md"] == own.read_bytes()
    assert not (run / "MODEL.md").exists()
    assert hub.created.get("private") or hub.created.get("visibility") == "private"


@pytest.mark.parametrize("content", [b"\x80\x04 pickle", b"PK\x03\x04 archive"])
def test_a_pickle_is_refused_under_whatever_name(hub, run, content):
    (run / "export" / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"a pickle must not be shared, '.*model\.onnx'"):
        share(run, "me/digits")
    assert hub.asked == []


def test_damaged_weights_are_not_pushed(hub, run):
    (run / "model.safetensors").write_bytes(b"\x80 pickle")
    with pytest.raises(ValueError, match="cannot be read"):
        share(run, "me/digits")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/create", 401),
        ("/create", 403),
        ("/preupload/main", 403),
        ("/objects/batch", 500),
        ("/validate-yaml", 400),
        ("/commit/main", 403),
    ],
)
def test_a_refusal_is_one_sentence(hub, run, path, status, monkeypatch):
    http_module = pytest.importorskip("huggingface_hub.utils._http")
    monkeypatch.setattr(http_module.time, "sleep", lambda seconds: None)
    hub.refuse[path] = status
    with pytest.raises(
        ValueError, match=f"the Hub must accept 'me/digits', {hub.url} did not"
    ) as e:
        share(run, "me/digits")
    assert "\n" not in str(e.value)
    assert path == "/validate-yaml" or f"You may not do this (HTTP {status})" in str(e.value)
    assert "hf_secret" not in str(e.value)
    assert hub.files == {}


def test_no_network_is_one_sentence(hub, run, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9 did not: .*refused"):
        share(run, "me/digits")


def test_no_token_is_one_sentence(hub, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with pytest.raises(ValueError, match="log in with 'hf auth login', or set HF_TOKEN"):
        share(run, "me/digits")
    assert hub.asked == []


def test_a_name_that_the_hub_cannot_have_is_refused(hub, run):
    with pytest.raises(ValueError, match="the Hub must accept 'a/b/c'"):
        share(run, "a/b/c")


def test_a_missing_extra_and_a_missing_card_are_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'fastcv\[hub\]'"):
        share(run, "me/digits")


def test_a_missing_card_is_one_sentence(hub, run, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        share(run, "me/digits", card_file=tmp_path / "none.md")

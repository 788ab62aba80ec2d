import copy
import hashlib
import io
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18, resnet50

from fastcv.learning import weights


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Serve ResNet-18's ImageNet weights on loopback: set `files`, read `hits`."""

    class Handler(BaseHTTPRequestHandler):
        files: ClassVar[dict[str, bytes]] = {}
        hits: ClassVar[list[str]] = []
        cut = None  # bytes after which the connection breaks

        def do_GET(self):
            self.hits.append(self.path)
            content = self.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.cut])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    Handler.server, Handler.cache = server, tmp_path / "hub" / "checkpoints"

    def offer(content, *, digest=None):
        name = f"/resnet18-{(digest or hashlib.sha256(content).hexdigest())[:8]}.pth"
        Handler.files[name] = content
        url = f"http://127.0.0.1:{server.server_port}{name}"
        monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", url)

    Handler.offer = staticmethod(offer)
    yield Handler
    server.shutdown()
    server.server_close()
    thread.join()


def pth(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_named_fetches_verifies_and_caches(served):
    state = resnet18().state_dict()
    served.offer(pth(state))
    fetched = weights.named(resnet18, "IMAGENET1K_V1")
    assert fetched.keys() == state.keys()
    assert all(torch.equal(fetched[key], state[key]) for key in state)
    assert len(list(served.cache.iterdir())) == 1
    weights.named(resnet18, "DEFAULT")
    assert len(served.hits) == 1  # the second came from the cache


def test_named_with_wrong_checksum_is_a_value_error_and_keeps_no_file(served):
    served.offer(pth({"a": torch.ones(2)}), digest="0123456789abcdef")
    with pytest.raises(ValueError, match=r"invalid hash value.*give the path of a .pth"):
        weights.named(resnet18, "IMAGENET1K_V1")
    assert list(served.cache.iterdir()) == []


def test_named_missing_on_the_server_is_a_value_error_and_keeps_no_file(served):
    served.offer(pth({"a": torch.ones(2)}))
    served.files.clear()
    with pytest.raises(ValueError, match=r"'IMAGENET1K_V1' of resnet18 .*HTTP Error 404"):
        weights.named(resnet18, "IMAGENET1K_V1")
    assert list(served.cache.iterdir()) == []


def test_named_broken_off_is_a_value_error_and_keeps_no_file(served):
    served.offer(pth({"a": torch.ones(5000)}))
    served.cut = 9000
    with pytest.raises(ValueError, match="must come whole from http://127"):
        weights.named(resnet18, "IMAGENET1K_V1")
    assert list(served.cache.iterdir()) == []


def test_named_without_a_server_is_a_value_error_and_keeps_no_file(served):
    served.offer(pth({"a": torch.ones(2)}))
    served.server.shutdown()
    served.server.server_close()
    with pytest.raises(ValueError, match=r"refused.*give the path of a .pth or .safetensors file"):
        weights.named(resnet18, "IMAGENET1K_V1")
    assert list(served.cache.iterdir()) == []


def test_named_never_unpickles_what_it_fetched(served):
    served.offer(pth({"a": partial(print, "unpickled")}))
    with pytest.raises(ValueError, match=r"give the path of a .pth"):
        weights.named(resnet18, "IMAGENET1K_V1")


def test_named_with_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'IMAGENET1K_V3'\. Did you mean 'IMAGENET1K_V[12]'\?"):
        weights.named(resnet50, "IMAGENET1K_V3")
    with pytest.raises(
        ValueError, match=r"resnet18 has no weights 'zz'\. There are: IMAGENET1K_V1"
    ):
        weights.named(resnet18, "zz")


def test_save_and_load_copy_every_tensor(tmp_path):
    source, target = net().to(memory_format=torch.channels_last), net()
    assert not equal(source, target)
    weights.save(source, tmp_path / "model.safetensors")
    weights.load(target, tmp_path / "model.safetensors")
    assert equal(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_save_of_a_compiled_model_keeps_clean_keys(tmp_path):
    plain = net()
    compiled = torch.compile(nn.Sequential(torch.compile(plain)))
    weights.save(compiled, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == {
        f"0.{key}" for key in plain.state_dict()
    }
    other = nn.Sequential(net())
    weights.load(other, tmp_path / "model.safetensors")
    assert equal(other[0], plain)
    with torch.no_grad():
        plain[0].weight.zero_()
    weights.load(compiled, tmp_path / "model.safetensors")
    assert equal(other[0], plain)


def test_save_of_shared_tensors_loads_into_tied_and_untied_models(tmp_path):
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    weights.save(tied, tmp_path / "model.safetensors")
    untied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    weights.load(untied, tmp_path / "model.safetensors")
    assert equal(tied, untied)
    again = copy.deepcopy(tied)
    nn.init.zeros_(again[0].weight)
    weights.load(again, tmp_path / "model.safetensors")
    assert equal(tied, again)
    assert again[0].weight is again[1].weight


def test_save_interrupted_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path, first = tmp_path / "model.safetensors", net()
    weights.save(first, path)

    def broken(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        weights.save(net(), path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    second = net()
    weights.load(second, path)
    assert equal(first, second)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "opt": {}}])
def test_read_opens_pth_files_and_checkpoints(tmp_path, wrap):
    source = net()
    torch.save(wrap(source.state_dict()), tmp_path / "model.pth")
    target = net()
    weights.load(target, tmp_path / "model.pth")
    assert equal(source, target)


def test_load_without_the_counts_of_old_files_fits(tmp_path):
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "old.safetensors")
    target = net()
    weights.load(target, tmp_path / "old.safetensors")
    assert torch.equal(target[0].weight, state["0.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"3.weight": torch.ones(5, 4)}, r"'3.weight' has shape \(5, 4\) where \(2, 4\) is needed"),
        ({"1.running_mean": None, "3.weight": None}, "'1.running_mean' is missing"),
        ({"9.extra": torch.ones(1)}, "'9.extra' is not one of its names"),
    ],
)
def test_load_of_other_weights_names_the_first_misfit_and_changes_nothing(tmp_path, change, words):
    state = {k: v for k, v in (net().state_dict() | change).items() if v is not None}
    save_file(state, tmp_path / "other.safetensors")
    target = net()
    before = copy.deepcopy(target)
    with pytest.raises(ValueError, match=words):
        weights.load(target, tmp_path / "other.safetensors")
    assert equal(target, before)


class Trap:
    """Sets `sprung` when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_read_of_a_pickle_refuses_without_running_it(tmp_path):
    torch.save({"a": Trap()}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="must be a whole file of plain tensors"):
        weights.read(tmp_path / "model.pth")
    assert not Trap.sprung


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("keep", [0, 20, 300])
def test_read_of_a_truncated_file_is_a_value_error(tmp_path, name, keep):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(net().state_dict(), path)
    else:
        weights.save(net(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="must be a whole file of plain tensors"):
        weights.read(path)


def test_read_of_no_file_another_kind_and_no_tensors_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="there must be a weights file"):
        weights.read(tmp_path / "none.pth")
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must end in .safetensors, .pth or .pt, got 'model.pkl'"):
        weights.read(tmp_path / "model.pkl")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold tensors by name"):
        weights.read(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("given", "path"),
    [("IMAGENET1K_V1", False), ("a.pth", True), ("runs/x/model.safetensors", True), ("a/b", True)],
)
def test_is_path_tells_files_from_names(given, path):
    assert weights.is_path(given) is path

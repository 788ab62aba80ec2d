import pytest
import torch

from fastcv.experiment.environment import environment
from fastcv.learning import cuda


@pytest.fixture(autouse=True)
def _restored():
    deterministic = torch.backends.cudnn.deterministic
    with cuda.torchs_own():
        yield
    torch.backends.cudnn.deterministic = deterministic


def test_fp32_is_fp32_and_kernels_are_chosen_unless_determinism_is_asked_for():
    torch.set_float32_matmul_precision("high")
    cuda.prepare()
    assert cuda.settings() == {
        "tf32_convolutions": False,
        "matmul_precision": "highest",
        "cudnn_benchmark": True,
    }
    torch.backends.cudnn.deterministic = True
    cuda.prepare()
    assert cuda.settings()["cudnn_benchmark"] is False


def test_environment_tells_the_settings_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    cuda.prepare()
    assert environment("cuda", "fp32")["cuda_settings"] == cuda.settings()
    assert environment("cpu", "fp32")["cuda_settings"] is None

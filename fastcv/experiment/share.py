"""Share what a run trained on the Hugging Face Hub: weights and descriptions, never a pickle."""

import dataclasses
import json
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import ModuleType

from fastcv.experiment.card import FOLDER, LICENSE, last_part, write_card
from fastcv.experiment.directory import Run
from fastcv.experiment.trained import trained_model
from fastcv.predict import trained
from fastcv.predict.export import FILES, INT8, RESIZE

ENDPOINT = "HF_ENDPOINT"
EXPORTED = (FILES["onnx"], INT8, RESIZE)  # those that exist; model.pt2 may hold pickled values
_PICKLES = (b"\x80", b"PK")  # how pickles begin, and the archives in which torch.save keeps them


def share(
    run: str | PathLike,
    repository: str,
    *,
    license: str = LICENSE,
    card_file: Path | None = None,
    private: bool = False,
    trust: bool = False,
    write: Callable[[str], None] = print,
) -> str:
    """Push what a run trained to the Hugging Face Hub, in one commit.

    It pushes model.safetensors, model.json, classes.json, the ONNX files that `fastcv export` wrote
    into the run directory, and the model card as README.md; nothing that names a folder of this
    machine, and no checkpoint. The token is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT may
    name another server.

    Args:
        run: the directory of a finished run.
        repository: USER/NAME; made if it does not exist.
        license: an identifier of the Hub, such as "apache-2.0".
        card_file: a model card to push; None writes one from the run, and keeps it as MODEL.md.
        private: whether a repository that is made is private.
        trust: as of `Run`, for a run of your own recipe file.
        write: receives a line at the end.

    Returns:
        the address of the repository.

    Raises:
        ValueError: the run has no trained model, the extra is missing, there is no token, or the
            Hub refuses or cannot be reached.
    """
    hub = _hub()
    run = Run(Path(run), trust=trust)
    files = _contents(run, repository, license, card_file)
    endpoint = os.environ.get(ENDPOINT) or None
    api = hub.HfApi(endpoint=endpoint, library_name="fastcv")
    if hub.get_token() is None:
        raise ValueError(
            "sharing on the Hugging Face Hub needs a token that may write: log in with "
            "'hf auth login', or set HF_TOKEN"
        )
    # HTTPError is its client's: httpx's or httpx2's.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        commit = api.create_commit(
            repository,
            [hub.CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Share {trained_model(run).name}",
        )
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # A large file's own error stands behind a RuntimeError.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        reason = str(cause)
        if isinstance(cause, HfHubHTTPError) and cause.server_message:
            reason = f"{cause.server_message} (HTTP {cause.response.status_code})"
        reason = " ".join(reason.split())
        raise ValueError(
            f"the Hub must accept '{repository}', {api.endpoint} did not: {reason}"
        ) from error
    address = f"{api.endpoint}/{repository}"
    write(f"{address}: {', '.join(files)}; commit {commit.oid}")
    return address


def _contents(
    run: Run, repository: str, license: str, card_file: Path | None
) -> dict[str, bytes | Path]:
    """Return what is pushed: content or file by name.

    Raises:
        ValueError: a file is missing or damaged, or is a pickle under another name.
    """
    model = trained_model(run)
    model.build(run.path)  # refuses weights that are damaged, or another net's
    if card_file is None:
        written = write_card(run, license=license, repository=repository)
    elif card_file.is_file():
        written = card_file.read_text(encoding="utf-8")
    else:
        raise ValueError(f"--card must be a model card, there is no file {str(card_file)!r}")
    weights = run.path / trained.WEIGHTS
    # A file of weights that training began from: its name, not the folder where it was.
    public = dataclasses.replace(model, weights=model.weights and last_part(model.weights))
    described = public.plain() | {"sha256": trained.sha256(weights)}
    files: dict[str, bytes | Path] = {
        trained.WEIGHTS: weights,
        trained.NAME: _json(described),
        "classes.json": _json(list(model.classes)),
        "README.md": written.encode(),
    }
    for name in EXPORTED:
        file = run.path / FOLDER / name
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(2).startswith(_PICKLES):
                    raise ValueError(
                        f"a pickle must not be shared, {str(file)!r} is one: remove it"
                    )
            files[name] = file
    return files


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _hub() -> ModuleType:
    """Import huggingface_hub.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"sharing on the Hugging Face Hub needs the extra hub: "
            f"pip install 'fastcv[hub]' ({error})"
        ) from error
    return huggingface_hub

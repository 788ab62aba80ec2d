"""Run a page of the course as its reader does: block after block, in one folder."""

import glob
import re
import shlex
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from typer.testing import CliRunner

from fastcv.cli import app

BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.M | re.S
)
# What a reader types and a test does not: why.
ELSEWHERE = (
    "pip ",  # everything is installed
    "fastcv serve ",  # it waits for requests: tests/predict/test_serve.py
    "curl ",
    "wandb ",  # it needs an account
    "fastcv recipe mnist_cnn/one_cycle #",  # minutes; tests/test_readme.py reads its settings
    "fastcv recipe finetune --data photos",  # ImageNet's weights, and photos of a reader
)
COURSE = (
    *("start", "photos", "reproduce", "migrate"),
    *("how-to/lr-finder", "how-to/freeze", "how-to/offline"),
    *("how-to/reproducibility", "how-to/notebook"),
)


class Page:
    """The blocks of one page, run in order in the current folder.

    Python runs in one namespace, and a block with a title is written to the file of that name.
    Lines for the shell that call fastcv run in this process. A `text` block is what the block
    before it printed: its lines must come in this order, numbers aside; `...` stands for any.
    """

    def __init__(self, file: Path):
        self.blocks = list(BLOCK.finditer(file.read_text(encoding="utf-8")))
        self.file = file
        self.names = {}
        self.printed = ""

    def run(self):
        """Run the page; a block that fails names itself."""
        for block in self.blocks:
            language, title, code = block["language"], block["title"], block["code"]
            if title is not None:
                Path(title).write_text(code)
            elif language == "python":
                written = StringIO()
                with redirect_stdout(written):
                    exec(compile(code, self.file.name, "exec"), self.names)
                self.printed = written.getvalue()
            elif language == "bash":
                lines = code.replace("\\\n", " ").splitlines()
                self.printed = "".join(self._shell(line) for line in lines)
            elif language == "text":
                self._compare(code)
            else:
                raise ValueError(f"{self.file.name}: nothing runs {language!r}")

    def _shell(self, line):
        words = shlex.split(line, comments=True)
        if not words or line.startswith(ELSEWHERE):
            return ""
        if words[0] != "fastcv":
            done = subprocess.run(
                ["bash", "-ec", line], capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, (line, done.stderr)
            return done.stdout
        words = [found for word in words[1:] for found in sorted(glob.glob(word)) or [word]]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (line, done.output, done.exception)
        return done.output

    def _compare(self, shown):
        left = iter(_form(self.printed))
        for line in _form(shown):
            assert line == "..." or any(line == each for each in left), (line, self.printed)


def _form(text):
    """Return the lines of an output without their numbers and runs of blanks."""
    text = re.sub(r"\d{8}-\d{6}", "STAMP", text)
    text = re.sub(r"\d[\d,.]*(e[+-]\d+)?( (s|min|ms)\b)?", "0", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]

"""The sandbox as a process of its own, for tests of whatever speaks to it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests

COMMAND = (sys.executable, "-m", "fanoutd", "sandbox")

_NOTHING: Mapping[str, object] = MappingProxyType({})
_START = 15.0
_STOP = 5.0


class SandboxProcess:
    """A running ``fanoutd sandbox``. Flags by name: ``latency="240ms", no_window=0.33, lenient=True``."""

    def __init__(self, ledger: Path, **flags: object) -> None:
        self.ledger = ledger
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--ledger", str(ledger), *_arguments(flags)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], _START)[0], "the sandbox does not start"
        self.url = self.process.stdout.readline().strip()
        assert self.url, f"the sandbox ended with {self.process.wait()}"

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int:
        """Stop it as a user would; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()

    def ledger_rows(self) -> list[dict[str, Any]]:
        """The accepted messages so far, in their order."""
        if not self.ledger.exists():
            return []
        text = self.ledger.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def stats(self) -> dict[str, Any]:
        """Counts, as Stats.as_dict shapes them."""
        return self._control("GET", "stats")

    def set_options(self, **switches: object) -> dict[str, Any]:
        """Change switches from now on; all switches as they are then."""
        return self._control("POST", "options", switches)

    def script(self, openid: str, *answers: int | str, channel: str = "custom") -> None:
        """The answers to this person's coming calls on a channel, the last one for ever after."""
        self.scripts({openid: answers}, channel)

    def scripts(self, people: Mapping[str, Sequence[int | str]], channel: str = "custom") -> None:
        """The same for many people in one go."""
        document = {openid: {channel: list(answers)} for openid, answers in people.items()}
        self._control("POST", "people", document)

    def control(self, name: str, document: object = _NOTHING) -> dict[str, Any]:
        """``POST /_sandbox/NAME``, see fanoutd/sandbox/control.py; what it answers. None is JSON's null."""
        return self._control("POST", name, document)

    def revoke(self) -> int:
        """Kill every access token; how many there were."""
        return int(self._control("POST", "revoke")["revoked"])

    def _control(self, method: str, name: str, document: object = _NOTHING) -> dict[str, Any]:
        data = None if method == "GET" else json.dumps({} if document is _NOTHING else document)
        answer = requests.request(method, f"{self.url}/_sandbox/{name}", data=data, timeout=30)
        document = answer.json()
        assert answer.status_code == 200 and isinstance(document, dict), document
        return document


def _arguments(flags: Mapping[str, object]) -> list[str]:
    arguments = []
    for name, value in flags.items():
        option = f"--{name.replace('_', '-')}"
        arguments += [option] if value is True else [option, str(value)]
    return arguments

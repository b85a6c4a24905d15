"""The mold by itself: no signal is lost between a fork and the child's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_sigterm_just_after_the_fork_is_never_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "support.molds", "300"], cwd=Path(__file__).parent, capture_output=True, text=True,
        timeout=100, check=True, env={name: value for name, value in os.environ.items() if "COV" not in name},
    )
    figures = json.loads(done.stdout)
    assert (figures["sent"], figures["ended"]) == (300, 300), done.stderr

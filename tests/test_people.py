"""People over a whole daemon: opt-outs in mid-campaign, who is gone, windows, the embedded audience, and its sync."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fanoutd.cli.send import _read  # noqa: F401  (the module that send shares with us must stay importable alone)
from fanoutd.client import BadRequest, TryAgain
from fanoutd.outcome import State
from fanoutd.store import subscribers
from fanoutd.store.shards import Planned
from support.bench import Bench, person, wait_for
from support.daemon import Daemon, follower

"""The local stand-in for the WeChat API: the same answers, errors and bad days, on 127.0.0.1."""

from fanoutd.sandbox.app import Sandbox
from fanoutd.sandbox.options import Options

__all__ = ["Options", "Sandbox"]

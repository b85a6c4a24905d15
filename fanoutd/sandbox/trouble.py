"""Errors on command: paths that answer every call with an errcode, or not properly at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.people import FAULTS


@dataclass(frozen=True, slots=True)
class _Error:
    errcode: int = 0
    errmsg: str = ""
    fault: str = ""
    times: int | None = None
    """Calls that still get it; None for all."""


class Trouble:
    """What is wrong with which path. Nothing, at first."""

    def __init__(self) -> None:
        self._by_path: dict[str, _Error] = {}

    def set(self, document: object, paths: Collection[str]) -> int:
        """Set or end errors, return how many paths have one. Raises ValueError; nothing is changed then.

        Shape: ``{path: error}``, an error being an errcode, a fault's name,
        ``{"errcode": n, "errmsg": text, "times": n}`` (the latter two are optional), or null for none.
        """
        if not isinstance(document, dict):
            raise ValueError("wants an object of paths")
        errors = {path: _error(path, value, paths) for path, value in document.items()}
        kept = {path: error for path, error in (self._by_path | errors).items() if error is not None}
        self._by_path = kept
        return len(kept)

    def meet(self, path: str) -> str:
        """What befalls a call: raises Refused, or gives a fault's name, or an empty one."""
        if not self._by_path:
            return ""
        error = self._by_path.get(path)
        if error is None:
            return ""
        self._count_down(path, error)
        if error.fault:
            return error.fault
        raise Refused(error.errcode, words=error.errmsg)

    def _count_down(self, path: str, error: _Error) -> None:
        if error.times is None:
            return
        if error.times == 1:
            del self._by_path[path]
        else:
            self._by_path[path] = replace(error, times=error.times - 1)


def _error(path: str, value: object, paths: Collection[str]) -> _Error | None:
    if path not in paths:
        raise ValueError(f"no path {path[:60]!r} of the API")
    if value in (None, 0):
        return None
    if isinstance(value, str) and value in FAULTS:
        return _Error(fault=value)
    return _refusal(path, value if isinstance(value, dict) else {"errcode": value})


def _refusal(path: str, given: Mapping[str, object]) -> _Error | None:
    errcode, errmsg, times = given.get("errcode"), given.get("errmsg") or "", given.get("times")
    if errcode in (None, 0):
        return None
    if not _whole(errcode) or not isinstance(errmsg, str) or not (times is None or (_whole(times) and times > 0)):
        raise ValueError(f"{path}: wants an errcode, one of {', '.join(FAULTS)}, or errcode, errmsg and times")
    return _Error(errcode, errmsg, "", times)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

"""Secrets: where an account's comes from, and who else may read the file it stands in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fanoutd.config.fields import Place
from fanoutd.config.values import has_password


def environment_name(account: str) -> str:
    """``FANOUTD_MAIN_APP_SECRET`` for the account main."""
    return f"FANOUTD_{account.upper().replace('-', '_')}_APP_SECRET"


def app_secret(
    account: str, file: Path | None, key: str | None, environ: Mapping[str, str], place: Place
) -> str | None:
    """The account's secret: the environment's before the file's before the key's; None without any.

    Raises BadConfig for a secret file that cannot be used.
    """
    given = environ.get(environment_name(account), "").strip()
    if given:
        return given
    return _from_file(file, place) if file is not None else key


def _from_file(file: Path, place: Place) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            secret = stream.read(4096).strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not a text file"
        raise place.error("app_secret_file", f"{file}: {reason}") from None
    if mode & stat.S_IROTH:
        raise place.error("app_secret_file", f"{file} may be read by everybody; chmod o= {file}")
    if len(secret.split()) != 1:
        raise place.error("app_secret_file", f"{file} wants the secret on one line and nothing else")
    return secret


def refuse_public(file: Path, mode: int, document: Mapping[str, Any]) -> None:
    """Raise BadConfig when the configuration holds a secret and the world may read it."""
    if not mode & stat.S_IROTH:
        return
    for place, key in _secrets(document, Place(file)):
        raise place.error(key, f"is a secret, and everybody may read this file; chmod o= {file}")


def _secrets(table: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
    """Where secrets stand: under app_secret, and in URLs with a password. Message bodies hold none."""
    for key, value in table.items():
        if key == "app_secret" or (isinstance(value, str) and has_password(value)):
            yield place, key
        elif isinstance(value, dict) and (place.table or key != "message"):
            yield from _secrets(value, place.sub(key))

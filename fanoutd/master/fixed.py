"""What cannot change under a living daemon: where it lives and who it is."""

from __future__ import annotations

from fanoutd.config import Config

_DAEMON = ("state_dir", "socket", "socket_mode", "socket_group", "pidfile", "user")


def changed(old: Config, new: Config) -> str | None:
    """The first key that differs and may not, as ``[daemon] socket``; None when there is none."""
    for key in _DAEMON:
        if getattr(old.daemon, key) != getattr(new.daemon, key):
            return f"[daemon] {key}"
    return "[store] url" if old.store_url != new.store_url else None

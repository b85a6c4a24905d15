"""WeChat's call-back as a small WSGI application, to be mounted in any web server; see docs/callback.md.

    from fanoutd.callback import Callback
    application = Callback("/run/fanoutd/fanoutd.sock", token="…")

``app`` puts it together. Pure: ``signature``, ``crypto``, ``parsing``, ``push`` (what an event means), ``reply``.
Towards the daemon: ``asking`` (a text 0 or 1, at once) and ``outbox`` (everything else, by a thread).
"""

from fanoutd.callback.app import Callback

__all__ = ["Callback"]

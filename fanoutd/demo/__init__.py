"""``fanoutd demo``: the whole product on this machine, and an account of every follower.

``stage`` sets it up (sandbox API, followers, configuration, daemon), ``audit`` holds the API's
own ledger against the daemon's word, ``report`` is the last screen.
"""

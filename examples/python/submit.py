"""A notice to everybody, exactly once: ``python submit.py ORDER TEXT PHONE``.

The key makes it one campaign however often it is submitted: whatever goes wrong, it may be tried again.
"""

import os
import sys
import time

from fanoutd.client import Client, TryAgain, Unreachable

SOCKET = os.environ.get("FANOUTD_SOCKET", "/run/fanoutd/fanoutd.sock")


def submit(order: str, text: str, phone: str) -> dict[str, object]:
    pauses = [1, 5, 25]
    while True:
        try:
            with Client(SOCKET) as c:
                return c.submit(content=text, phone=phone, key=f"order-{order}", reference=order)
        except (Unreachable, TryAgain):
            if not pauses:
                raise
            time.sleep(pauses.pop(0))


answer = submit(*sys.argv[1:4])
print(answer["campaign"], "known already" if answer["duplicate"] else "accepted")

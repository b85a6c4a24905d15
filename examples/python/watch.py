"""Submit to a few people and look on until it is over: ``python watch.py TEXT OPENID…``."""

import os
import sys

from fanoutd.client import Client

with Client(os.environ.get("FANOUTD_SOCKET", "/run/fanoutd/fanoutd.sock"), timeout=60) as c:
    campaign = c.submit(content=sys.argv[1], phone="", openids=sys.argv[2:])["campaign"]
    for seen in c.watch(campaign):
        print(seen["state"], seen["counts"])
    for row in c.call("campaign.deliveries", campaign=campaign)["rows"]:
        print(row["openid"], row["state"], row["channel"] or "-", row["errcode"])

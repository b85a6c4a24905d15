"""The store: campaigns, shards and deliveries, on one SQL subset that SQLite and MySQL share.

``database`` says what a connection can do, ``sqlite`` and ``mysql`` do it, ``schema`` has the tables, and a module each
has the SQL: ``campaigns`` (rows and states), ``listing``, ``activity``, ``reasons``, ``plan_owners``, ``repairs``,
``finishing``; ``shards`` (rows), ``shard_leases``, ``free_shards``, ``windows``; ``deliveries``, ``records``,
``counters``; tokens and so on. The functions there take the database first and are called inside
``database.transaction()`` unless they say otherwise.

Where several write at once (MySQL), a transaction locks in this order: shards by their id, a shard's deliveries only
while the shard is held, subscribers, quotas, then campaigns. What is read in order to be changed is read with
``db.LOCK``; what is read without it may have changed by the time of the next statement. Where a cycle comes about all
the same, the database undoes one transaction, and it is repeated (``StoreBusy``).
"""

from fanoutd.store.database import Database, StoreAway, StoreBusy, StoreUnsure, again_if_busy
from fanoutd.store.opening import open_store

__all__ = ["Database", "StoreAway", "StoreBusy", "StoreUnsure", "again_if_busy", "open_store"]

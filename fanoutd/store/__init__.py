"""The store: campaigns, shards and deliveries, on one SQL subset that SQLite and MySQL share.

``database`` has the connection, ``schema`` the tables, and a module each for campaigns, shards
(leases, windows, records) and tokens has the SQL. The functions there take the database first
and are called inside ``database.transaction()`` unless they say otherwise.
"""

from fanoutd.store.database import Database, StoreAway, open_store

__all__ = ["Database", "StoreAway", "open_store"]

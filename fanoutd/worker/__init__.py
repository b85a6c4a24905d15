"""The worker: leases a shard, sends it, records it. Nothing else.

``main`` is the loop, ``lane`` one account's queue, ``wire`` the requests on it, ``recorder`` the
store's side in a thread of its own, ``breaker`` when to stop asking an API that does not answer.
"""

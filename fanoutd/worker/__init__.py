"""The worker: leases a shard, sends it, records it. Nothing else.

``main`` is the loop and the master's words, ``shift`` a turn of it while there is work: ``takes`` has claimed people
line up, in ``lanes`` (``lane``: one account's queue); ``starts`` calls them, on the ``wire``; ``answers`` says what
becomes of each; ``stops`` has a campaign pause, as ``watch`` and ``verdicts`` say; ``breaker`` is when to stop asking
an API that does not answer.

``recorder`` is the store's side, in a thread of its own. What goes to it is put at the ``desk``, what comes from it is
in ``words``. A ``round`` is what one ``transaction`` takes in: ``errands``, ``records``, ``claims`` (of whom ``sift``
and ``rests`` say who may be called). ``numbered`` makes it durable once, ``effects`` makes it true here; ``holds`` are
the leased shards.
"""

"""The dispatcher: whatever may block outside the sending path.

``main`` takes the master's messages, on the ``threads`` that there are for each, when there is ``trust`` in the store.

- Campaigns: ``importer`` brings submissions into the store, ``plan_queue`` has them wait for what they must wait for,
  ``planner`` turns audiences into shards, ``shared_work`` shares them with other nodes (``cluster``).
- The master's asks: ``answers`` has them answered by ``questions`` (most by ``queries``) or done by ``orders``.
- Its scheduled ``jobs``; what is owed to the operator's side are ``errands``.
- Tokens: ``refresher`` keeps them (from ``token_sources``, by the rules of ``token_standing``).
- After a death: ``recovery`` reads the journals of dead workers, ``repair`` those of a store that was put back.
"""

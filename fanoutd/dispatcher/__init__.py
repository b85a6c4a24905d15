"""The dispatcher: whatever may block outside the sending path.

``main`` takes the master's messages, ``importer`` brings submissions into the store, ``planner``
turns audiences into shards, ``queries`` answers clients, ``refresher`` keeps access tokens (from
``token_sources``, by the rules of ``token_standing``) and ``recovery`` reads the journals of dead workers.
"""

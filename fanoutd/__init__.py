"""fanoutd: one socket write, every follower reached, every delivery accounted for."""

__version__ = "0.1.0"

"""A streaming gateway between developers' tools and language-model accounts."""

__version__ = "0.1.0"

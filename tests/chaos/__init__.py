"""Nodes of one gateway under every fault that is known, judged from outside."""

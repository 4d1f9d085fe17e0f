"""The right to run: who is next, and who holds a slot."""

"""The limits of several processes or hosts as one: what is kept in the engine."""

"""The choice of an account: which fits, which is well, which knows the session."""

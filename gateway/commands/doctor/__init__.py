"""``gateway doctor``: look at a whole installation, and say what will go wrong."""

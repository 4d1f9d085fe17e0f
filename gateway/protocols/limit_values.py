"""Values of limits that several vendors share."""

NAME = r"[A-Za-z0-9_-]{1,64}"
IMAGE_TYPES = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
UNIONS = ("anyOf", "oneOf", "allOf")

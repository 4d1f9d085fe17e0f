"""A client that is served over a websocket: RFC 6455, and RFC 7692 for compression."""

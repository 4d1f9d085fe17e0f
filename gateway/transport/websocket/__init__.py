"""Responses over websockets that the gateway opens: frames, sockets, their pool."""

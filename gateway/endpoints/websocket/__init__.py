"""``GET /v1/responses`` with an upgrade: Responses over a websocket."""

"""The room of the HTTP client: how requests reach an upstream and answers come back."""

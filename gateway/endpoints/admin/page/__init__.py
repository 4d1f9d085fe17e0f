"""The operator's page: HTML made on the server, one style sheet, one small script."""

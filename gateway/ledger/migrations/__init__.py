"""The versions of the ledger's schema, applied by Alembic when a ledger is opened."""

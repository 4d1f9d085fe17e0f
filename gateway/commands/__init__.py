"""The commands of ``gateway`` that are more than a question to the ledger."""

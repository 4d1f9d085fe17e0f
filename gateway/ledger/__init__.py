"""What happened and what it cost, kept for good."""

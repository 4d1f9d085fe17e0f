"""What the gateway costs, beside nginx and a bare relay: ``make bench``."""

"""One truth for several processes and hosts, in an engine (Valkey or Redis)."""

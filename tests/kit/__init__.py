"""What the tests stand on: a scripted upstream, the real daemon, real clients."""

"""One run on this machine: what it is given, what of it is in the store, what it has come to."""

"""A run on this machine: its processes in order, how far they are, how long they may take."""

"""The running operator: its loop, its handlers, and what it tells of itself."""

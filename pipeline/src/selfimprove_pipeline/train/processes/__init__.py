"""The processes of one training: its machines and its ranks, and how they find each other."""

"""What a text says: its language, its numbers, its final answer. Pure."""

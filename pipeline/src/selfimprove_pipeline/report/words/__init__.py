"""How a report writes its numbers and sentences."""

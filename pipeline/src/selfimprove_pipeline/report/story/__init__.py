"""What a report tells, as plain data, and how it is read from the store."""

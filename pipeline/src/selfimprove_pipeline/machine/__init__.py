"""What a process knows of the machine it runs on: devices, and whether its parent still lives."""

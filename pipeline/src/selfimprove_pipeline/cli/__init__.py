"""What each command of `selfimprove` does. `__main__` reads the arguments."""

"""What a user gives: the run file, prompts and suites, read and checked."""

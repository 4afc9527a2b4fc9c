"""The run file: read as kubectl reads it, every mistake told with file and line."""

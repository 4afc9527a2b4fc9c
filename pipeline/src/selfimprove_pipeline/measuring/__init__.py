"""What is measured on rows, and how sure it is: rates, differences, gates. Pure."""

"""What watches have told, and which run is looked at next."""

"""What a launch does, and the manifests it is made of. Pure."""

"""What a model's files say of its training, and the folder that the trained model becomes."""

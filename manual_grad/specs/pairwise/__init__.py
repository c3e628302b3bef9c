"""The specs of the losses of two or three feature vectors."""

"""The specs of the losses of a projection, then rows of class scores."""

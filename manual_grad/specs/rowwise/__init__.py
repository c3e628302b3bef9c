"""The specs of the losses of one row of class scores."""

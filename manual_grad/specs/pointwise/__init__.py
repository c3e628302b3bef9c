"""The specs of the losses of one element of each input."""

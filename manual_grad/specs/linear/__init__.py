"""The specs of the losses of features and a linear projection."""

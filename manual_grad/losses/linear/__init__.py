"""Losses of features and a linear projection that scores them."""

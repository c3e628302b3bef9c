"""For readers: the chapters of the losses."""

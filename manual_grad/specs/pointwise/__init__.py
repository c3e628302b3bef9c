"""The specs of the elementwise losses."""

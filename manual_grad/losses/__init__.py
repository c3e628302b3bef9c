"""The losses, one file each: derivation, value, first and second derivative, Function, functional, Module."""

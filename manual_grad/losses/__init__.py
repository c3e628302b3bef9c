"""One file per loss: derivation, value, first and second derivative, Function, functional, Module."""

"""Tools for studying the losses: their chapters, also in the terminal, and plots along a line through their domain."""

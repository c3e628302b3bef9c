"""For studying the losses: the line along which each is drawn, and its plot."""

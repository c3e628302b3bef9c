"""For studying the losses: their chapters, in the terminal too, the line along which each is drawn, and its plot."""

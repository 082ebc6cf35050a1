"""What lies in a run folder, and what follows from it: the front, its noise, the pick."""

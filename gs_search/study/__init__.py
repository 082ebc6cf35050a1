"""What is wanted: the study file, its settings and its search space, read, checked and written."""

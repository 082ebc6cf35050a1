"""What a study will cost, from a few trials of few steps."""

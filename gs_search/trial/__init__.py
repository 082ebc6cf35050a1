"""One trial of a study, and what all of them share."""

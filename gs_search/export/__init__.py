"""From a student to files that devices run, with the proof that they are the student."""

"""What a student is worth: distances between sets of pictures, operations, bytes, milliseconds."""

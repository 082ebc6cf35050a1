"""What the computer is and offers: processor, memory, files, processes, signals."""

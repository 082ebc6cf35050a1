"""ExecuTorch's files, and the proof that they are the student."""

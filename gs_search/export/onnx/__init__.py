"""ONNX files: floats, whole numbers, and the proof that they are the student."""

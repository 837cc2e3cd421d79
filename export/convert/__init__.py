"""From Keras to TensorFlow Lite and ONNX."""

"""The only door to legacy Keras: models are converted to tf_keras and back."""

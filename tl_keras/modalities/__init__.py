"""One folder for each kind of input: how it is read, checked, augmented and described."""

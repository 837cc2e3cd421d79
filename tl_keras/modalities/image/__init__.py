"""Images: decoding, augmented views, checks, corruptions."""

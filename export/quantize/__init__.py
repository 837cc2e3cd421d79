"""Makes files smaller and faster, and repairs what lost accuracy."""

"""A trained run learns more: new classes, or new pictures of those it knows."""

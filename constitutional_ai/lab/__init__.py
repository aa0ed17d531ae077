"""The laboratory: a small world in which every truth is known, and models that grew up in it."""

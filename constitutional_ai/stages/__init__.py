"""The eight stages of the pipeline, a module each, and ``pipeline.py``, which runs them."""

"""Look into a dataset: validate it, describe it, and show it on a page."""

"""`df-data inspect`: one HTML page on which a person checks a dataset by eye."""

"""Recipes and reports of the synthetic corpus: its reader's training and errors, its speech."""

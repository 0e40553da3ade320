"""What an evaluation writes: tables, plots, videos, the page."""

"""What `df-data validate` checks, a part a file: the archive, a sample's contents, its mp4, the records."""

"""Lists of clips, several at once."""

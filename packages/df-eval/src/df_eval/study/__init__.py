"""Studies (`df-study`): a question, runs of df-train and df-eval as commands, and verdicts with paired intervals."""

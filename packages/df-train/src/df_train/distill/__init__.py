"""Few-step distillation: a student that jumps to the end of the trained model's path (`task: distill`)."""

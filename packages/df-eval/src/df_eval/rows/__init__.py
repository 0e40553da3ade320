"""What is measured beside the truth: runs, other systems, interventions."""

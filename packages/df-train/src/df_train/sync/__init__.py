"""The lip-sync expert: trained on latents and audio (`task: sync`), then frozen as a loss (`objective.sync`)."""

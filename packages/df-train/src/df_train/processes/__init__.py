"""Processes and devices: how many there are, what they tell each other, and how parameters are spread over them."""

"""Adapters to voice stacks: LiveKit agents and Pipecat hand over speech and get a face that says it."""

"""Known truth: videos, images and audio whose faults are known exactly, and what the stages find of them.

``uv run python -m benchmarks.stages.report --out docs/results/stages.md`` measures every stage and writes the tables.
"""

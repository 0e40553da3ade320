"""Who is who among a build's videos, found by their faces before the split, and checked again after the build."""

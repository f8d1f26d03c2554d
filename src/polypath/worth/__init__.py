"""What a path is worth: measured against what a user would pick instead."""

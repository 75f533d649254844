"""Trainers that people really write, each in one file: `python -m examples.ppo`."""

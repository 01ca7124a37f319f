"""Trainings that wait in a queue, run in processes of their own, and outlive whoever asked for them."""

"""Trainings for the watchdog: faults planted in one step of them, and healthy ones."""

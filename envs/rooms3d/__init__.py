"""Rooms in 3D, seen in first person: primitives, a camera, a world to walk in, and tasks."""

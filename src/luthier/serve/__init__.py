"""The service: HTTP in the shapes that people's clients speak already."""

"""Templates and static files of /sign, installed with the package."""

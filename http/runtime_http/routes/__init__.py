"""The routes, a module for each kind of thing; each makes a blueprint for one application."""
